"""Acknowledged ahead of their start: a consumer's own line, and the group that is next.

Messages wait here, still leased, so that they can be given back. Groups of them are acknowledged in
one round trip and are the pool's from then on. What waits there could only be published again, so
it is as little as keeps the slots busy.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from ..contracts import Job, LeaseId, Subscription
from ..errors import LeaseLost
from ..marking import Marking
from ..outcomes import ACK, Failed, Lost, Outcome, Requeue
from .lease import Keeper
from .slots import take_last

__all__ = ["Early"]
Answer: TypeAlias = Callable[[Job, Outcome], object]
log = logging.getLogger("fsdf.consumer")


class Early:
    """Belongs to a consumer's thread, or to who has joined it.

    While it is unknown whether `group` is acknowledged it has to be asked about again, and nothing
    of it may start. There may be some in it that are acknowledged late.
    """

    def __init__(
        self, subscription: Subscription, keeper: Keeper, marking: Marking, answer: Answer
    ) -> None:
        self.line: deque[Job] = deque()
        self.group: Sequence[Job] = ()
        self._subscription, self._keeper = subscription, keeper
        self.marking, self._answer = marking, answer
        self._repeats, self._ours_until = False, 0.0

    def __len__(self) -> int:
        return len(self.line) + len(self.group)

    def clear(self) -> Sequence[Job]:
        """Take out what is surely not acknowledged, the last first."""
        return take_last(self.line, len(self.line))

    def disown(self) -> None:
        """Start nothing more: in a forked child all of it is the parent's."""
        self.line, self.group = deque(), ()

    def choose(self, count: int) -> None:
        """Make the first `count` of the line the group."""
        take, lost = self.line.popleft, self._keeper.lost
        jobs = [take() for _ in range(min(count, len(self.line)))]
        gone = [job for job in jobs if job in lost] if lost else ()
        self.group = [job for job in jobs if job not in gone] if gone else jobs
        self._repeats, self._ours_until = False, self._keeper.ours_until()
        for job in gone:
            self._answer(job, Requeue())

    def acknowledge(self) -> Sequence[Job]:
        """Return what of the group may start, and answer for the rest. Blocks for a round trip.

        Raises:
            Unavailable: perhaps some are acknowledged; ask again.
        """
        self._keeper.leaving = self.group
        done, lost = self._at_once() if not self._repeats else (0, ())
        if done < 3:
            lost = self._step_by_step()
        start, self.group = self.group, ()
        if lost:
            start = self._without(set(lost), start)
        self._keep([job for job in start if job.plan.early])
        self.marking.told()
        return start

    def _told(self) -> list[LeaseId]:
        return [job.delivery.lease for job in self.group if job.plan.early and not job.acked]

    def _at_once(self) -> tuple[int, Collection[LeaseId]]:
        told, marking = self._told(), self.marking
        try:
            return marking.put_and_acknowledge(self.group, self._subscription, told)
        except Exception:
            self._repeats = True
            raise

    def _step_by_step(self) -> Collection[LeaseId]:
        if gone := self.marking.put(self.group):
            self.group = [job for job in self.group if job not in gone]
            for job in gone:
                self._answer(job, Lost(1))
        told = [(lease, ACK) for lease in self._told()]
        try:
            return self._subscription.settle(told) if told else ()
        except Exception:
            self._repeats = True
            raise

    def give_up(self) -> Sequence[Job]:
        """Ask for the last time; what then has no answer goes back, if it is not acknowledged."""
        if not self.group:
            return ()
        try:
            return self.acknowledge()
        except Exception as error:
            if self._repeats:
                log.error(
                    "%d messages that did not run are perhaps acknowledged: %r",
                    len(self.group), error, extra={"bodies": [j.delivery.body for j in self.group]},
                )  # fmt: skip
        group, self.group, self._keeper.leaving = self.group, (), ()
        self.marking.told()
        for job in group:
            self._answer(job, Requeue())
        return ()

    def _keep(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.acked = True
        self._keeper.acknowledged(jobs)

    def _without(self, lost: Collection[LeaseId], group: Sequence[Job]) -> Sequence[Job]:
        """Tell what is another worker's from what an earlier call has acknowledged unheard.

        While leases cannot have ended it is the latter. Later nobody knows: rather lost than twice.
        """
        gone = [job for job in group if job.delivery.lease in lost]
        if self._repeats and time.monotonic() < self._ours_until:
            log.warning("%d messages were acknowledged without an answer; they run", len(gone))
            return group
        outcome: Outcome = Requeue()
        if self._repeats:
            log.error("%d messages do not run: perhaps other workers have them", len(gone))
            self._keep(gone)
            outcome = Failed(LeaseLost("acknowledged without an answer; perhaps another has it"))
        else:
            log.warning("%d leases were lost before they were acknowledged", len(gone))
            self._keeper.lost.update(gone)
        for job in gone:
            self._answer(job, outcome)
        return [job for job in group if job.delivery.lease not in lost]
