"""Names that no plan has: one job at a time asks where the code runs, and their messages wait.

They stay leased, may be given back, and are read again when the answer is there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import orjson

from .contracts import Delivery, Effect, Job, Plan, Pool, finish, lost_leases
from .core.ending import POISON
from .core.resolving import Resolving
from .errors import LeaseLost
from .message import FLAT
from .outcomes import (
    Crashed,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Requeue,
    Succeeded,
    TimedOut,
    Unknown,
    describe,
    kind_of,
    text_of,
)

__all__ = ["Asking", "Serve", "Turns"]

KEPT = 60.0  # seconds for which an unknown name stays so
TRIES = 2  # deaths and timeouts after which a name is unknown
MOST = 1000  # names that are remembered
LONGEST = 1000  # characters of a name that is asked for
Serve: TypeAlias = Callable[[str, Any], object]  # have the consumer serve a name, given the answer


class Turns:
    """Lets one question of a process be under way at a time. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[Asking] = deque()  # the first has its turn

    def take(self, who: Asking) -> None:
        """Call `who.ask()`, now or when it is its turn."""
        with self._lock:
            self._line.append(who)
            first = self._line[0] is who
        if first:
            who.ask()

    def leave(self) -> None:
        """End the turn of the first."""
        with self._lock:
            self._line.popleft()
            following = self._line[0] if self._line else None
        if following:
            following.ask()

    def drop(self, who: Asking) -> bool:
        """Take back what has not had its turn yet; False when it has."""
        with self._lock:
            waits = who in self._line and self._line[0] is not who
            if waits:
                self._line.remove(who)
            return waits


class Asking(Resolving):
    """Of one consumer, whose thread calls everything but `ask` and what an owner has.

    A question is run with a `name`; what it answers goes to `serve`, in the consumer's thread.
    """

    def __init__(
        self,
        question: Plan,
        serve: Serve,
        pool: Pool,
        plans: Mapping[str, Plan],
        turns: Turns,
        rouse: Callable[[], None],
    ) -> None:
        self.turns, self._answers = turns, deque[Job]()
        self.answered = self._answers
        self._question, self._serve, self._pool = question, serve, pool
        self._plans, self._rouse = plans, rouse
        self._waiting: dict[str, list[Job]] = {}
        self._faults: dict[str, tuple[int, float, str]] = {}  # deaths, unknown until, why
        self._asking = ""  # the name that has, or waits for, its turn
        self._asked: Job | None = None

    def aside(self) -> int:
        """Count the messages that wait, less the question: it takes a slot."""
        return sum(map(len, self._waiting.values())) - bool(self._asking)

    def sift(self, answers: list[tuple[Job, Outcome]]) -> list[Job]:
        """Take those messages out that can wait; of the others it is said why they are unknown."""
        read, waiting = [(job, self._known(job, outcome)) for job, outcome in answers], list[Job]()
        answers.clear()
        for job, outcome in read:
            if outcome is None:
                waiting.append(job)
            else:
                answers.append((job, outcome))
        return waiting

    def _known(self, job: Job, outcome: Outcome) -> Outcome | None:
        name = job.extra.get("task")
        if type(outcome) is not Unknown or type(name) is not str or not 0 < len(name) <= LONGEST:
            return outcome
        if (lost := lost_leases(job)) > POISON:  # the resolver ends its worker
            return Lost(lost)
        _, until, why = self._faults.get(name, (0, 0.0, ""))
        return Unknown(name, why) if time.monotonic() < until else None

    def hold(self, jobs: Sequence[Job]) -> None:
        """Keep messages until their names are known."""
        for job in jobs:
            self._waiting.setdefault(job.extra["task"], []).append(job)
        self._begin()

    def _begin(self) -> None:
        if self._waiting and not self._asking:
            self._asking = next(iter(self._waiting))
            self.turns.take(self)

    def ask(self) -> None:
        """Put the question to the pool. Any thread; never blocks."""
        job = self._asked = Job()
        job.plan, job.owner, job.id = self._question, self, f"resolver:{self._asking}"
        job.codec, job.extra, job.kept = FLAT, {}, {"name": self._asking}
        job.args, job.kwargs, job.published_at = (), job.kept, 0.0
        job.attempt, job.claims, job.acked, job.pushes = 0, [None], False, None
        try:
            job.delivery = Delivery((0, 0), orjson.dumps(job.kept))
            self._pool.submit((job,))
        except Exception as error:  # it is closed, or the name has no JSON form
            job.outcome = Failed(error)
            self.put(job)

    def put(self, job: Job, /) -> None:
        """Take the answer. Any thread; never blocks."""
        self._answers.append(job)
        self.turns.leave()
        with suppress(RuntimeError):  # the interpreter ends
            threading.Thread(target=self._rouse, name="fsdf-resolved", daemon=True).start()

    def commit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Store nothing: a question is no message."""
        raise LeaseLost("a resolver is no run, and what belongs to one cannot be stored")

    async def acommit(self, job: Job, effects: Sequence[Effect]) -> None:
        """As `commit`."""
        self.commit(job, effects)

    def release(self) -> list[Job]:
        """Take in the answers; return the messages that have waited for them, to be read again."""
        released: list[Job] = []
        while self._answers:
            job = self._answers.popleft()
            name, self._asking, self._asked = job.kwargs["name"], "", None
            if self._learn(name, job):
                released += self._waiting.pop(name, ())
        self._begin()
        return released

    def _learn(self, name: str, job: Job) -> bool:
        """Note what an answer says of a name; False: to be asked again."""
        outcome, deaths = job.outcome, self._faults.pop(name, (0, 0.0, ""))[0]
        if type(outcome) is Succeeded:
            why = self._served(name, job, outcome.value)
            if name in self._plans:
                return True
        elif type(outcome) in (Requeue, Crashed, TimedOut):  # the first: somebody's SIGTERM
            deaths += type(outcome) is not Requeue
            why = f"its resolver failed {deaths} times: {_text(outcome)}"
            if deaths < TRIES:
                self._note(name, deaths, 0.0, "")
                return False
        else:
            why = f"its resolver failed: {_text(outcome)}"
        self._note(name, 0, time.monotonic() + KEPT, why)
        return True

    def _served(self, name: str, job: Job, answer: Any) -> str:
        """Have the consumer serve a name; return why it does not."""
        try:
            if answer is ...:  # it stayed in a child, which told the plain part
                answer = orjson.loads(job.told) if type(job.told) is bytes else None
            if answer is not None:
                self._serve(name, answer)
                return "its resolver gave a task of another name"
        except BaseException as error:  # user code: annotations are looked up
            return f"what its resolver gave cannot be served: {kind_of(error)[1]}: {text_of(error)}"
        return ""

    def _note(self, name: str, deaths: int, until: float, why: str) -> None:
        self._faults[name] = deaths, until, why
        if len(self._faults) > MOST:
            del self._faults[next(iter(self._faults))]

    def withdraw(self) -> list[Job]:
        """Take back the messages, and the question if it has not started."""
        jobs = [job for waiting in self._waiting.values() for job in waiting]
        self._waiting.clear()
        if self._asking and self.turns.drop(self):
            self._asking = ""
        elif self._asked and self._pool.withdraw(1, self):
            self._asking, self._asked = "", None
            self.turns.leave()
        return jobs

    def close(self) -> None:
        """End the question: nobody waits for its answer any more."""
        self._rouse = lambda: None
        if self._asked and finish(self._asked, Requeue()):  # first: it may not end for long
            self._pool.interrupt(self._asked, Interrupted(), kill=True)


def _text(outcome: Outcome) -> str:
    if type(outcome) is Crashed:
        return f"its child process died, with exit code {outcome.exitcode}"
    return describe(outcome)
