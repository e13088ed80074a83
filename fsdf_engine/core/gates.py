"""What a consumer's gates judge: messages that come, and again those that wait here for long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..contracts import Gate, Job, Pool, Subscription
from ..outcomes import Outcome
from .forms import judge
from .lease import Keeper

__all__ = ["Gates"]
LOOK = 2.0  # seconds between two looks at what waits


Answers: TypeAlias = list[tuple[Job, Outcome]]


class Gates:
    """Belongs to a consumer's thread; `add` to any."""

    def __init__(self, gates: Sequence[Gate], keeper: Keeper, pool: Pool) -> None:
        self._gates, self._own = tuple(gates), tuple[Gate, ...]()  # `_own`: those of plans
        self._keeper, self._pool = keeper, pool
        self._looked = 0.0
        self._stopped: Mapping[Job, Outcome] = {}  # by the last look

    def add(self, gate: Gate | None) -> None:
        """Ask the gate of a plan, too."""
        if gate is not None and gate not in self._own:
            self._own += (gate,)
            self._gates += (gate,)

    def judge(
        self, jobs: list[Job], answers: Answers, subscription: Subscription | None = None
    ) -> None:
        """Move what may not run from `jobs` to `answers`. Blocks where a gate has to ask.

        They are what the last fetch of `subscription` has leased, if that is given.
        """
        asked = self._gates
        if subscription and subscription.unsigned:  # nothing could be found by those with signs
            subscription.unsigned = False  # of other messages it says nothing
            asked = tuple(gate for gate in asked if not getattr(gate, "signs", ()))
        self._judge(asked, jobs, answers)

    def _judge(self, gates: Sequence[Gate], jobs: list[Job], answers: Answers) -> None:
        for gate in gates:
            outcomes = judge(gate, jobs, time.time())
            if outcomes.count(None) < len(outcomes):
                answers += [(job, o) for job, o in zip(jobs, outcomes) if o is not None]
                jobs[:] = [job for job, o in zip(jobs, outcomes) if o is None]

    def look_again(self, line: deque[Job], now: float) -> Answers:
        """Take out of `line` and of the pool what waits there and may not run any more.

        Blocks for a round trip, now and then. What is found in neither has started meanwhile.
        """
        if not self._own or now - self._looked < LOOK:
            return []
        self._looked, running = now, set(self._pool.running())
        here = self._keeper.held | self._keeper.acked  # those that have ended among them
        answers: Answers = []
        jobs = [job for job in here if job.plan.gate and job not in running]
        self._judge(self._own, jobs, answers)
        before, self._stopped = self._stopped, dict(answers)
        if self._stopped.keys() <= before.keys():
            return []
        waiting = self._pool.withdraw(len(here), answers[0][0].owner)
        self._pool.submit([job for job in reversed(waiting) if job not in self._stopped])
        found = {*waiting, *line}
        rest = [job for job in line if job not in self._stopped]
        line.clear()
        line.extend(rest)
        return [(job, outcome) for job, outcome in answers if job in found]
