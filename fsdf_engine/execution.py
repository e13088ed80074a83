"""The contracts of execution and results: Job, Plan, Pool, Valve, Gate, Sink, ResultStore.

What exists once per message (Job, Record) is a plain slots class. Import from
`fsdf_engine.contracts`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from .core.retry import RetryPolicy
from .messaging import Delivery, Outgoing
from .outcomes import Outcome, Retry, Verdict

__all__ = [
    "Binder", "Effect", "Gate", "Inbox", "Job", "Owner", "Plan", "Pool", "PoolCapability", "Record",
    "Report", "ResultStore", "Sink", "Valve", "finish",
]  # fmt: skip


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An effect: what a result store keeps of one task id.

    `body` is a JSON object, opaque to the store. (`sends`, `deliveries`) fences stale writers: how
    often the message was replayed, and how often its lease was lost since. A `final` record
    replaces one that is not, never the other way round. `origin`, a few letters and digits, tells a
    message from another one that claims its id, "" where that is not known. `reply` is the inbox
    address of a waiting publisher, or "".
    """

    id: str
    body: bytes
    deliveries: int = 0
    final: bool = True
    expires: float = 86400.0
    reply: str = ""
    sends: int = 0
    origin: str = ""


class Inbox(ABC):
    """Where one process learns of results, without polling."""

    address: str  # travels in messages as `extra.reply`; nobody can guess it

    @abstractmethod
    def watch(self, ids: Sequence[str]) -> None:
        """Deliver the results of these ids too, whoever pushed them; at once if already stored."""

    def doubt(self) -> None:
        """Look after the connection: a result was found of which nothing has been heard."""

    @abstractmethod
    def close(self) -> None:
        """Stop its thread and free its connection. Idempotent."""


class ResultStore(ABC):
    """Keeps what became of messages, by task id. All methods may be called by any thread."""

    setting: ClassVar[str] = ""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def write(self, records: Sequence[Record]) -> None:
        """Store all in one round trip, then notify waiters; idempotent by id.

        A record changes nothing where the stored one has a greater (`sends`, `deliveries`), or is
        final and of another `origin`; in that case its own `reply` is told all the same. A `reply`
        that is no address of an inbox of this kind is ignored: it comes from a message.

        Raises:
            Unavailable: no record is at fault; the same call may be repeated.
        """

    @abstractmethod
    def read(self, ids: Sequence[str], *, final: bool = False) -> Mapping[str, bytes]:
        """Return the bodies of those that are stored and not expired; `final`: of ends only."""

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> int:
        """Delete; return how many there were."""

    @abstractmethod
    def inbox(
        self, deliver: Callable[[str, bytes], None], pending: Callable[[], Sequence[str]]
    ) -> Inbox:
        """Open this process's inbox: one thread, one connection.

        `deliver(id, body)` is called from its thread for every final record, perhaps twice.
        After a gap in the connection the inbox reads what `pending()` names and delivers it.
        """

    def close(self) -> None:
        """Free every connection. Idempotent."""


Effect: TypeAlias = Outgoing | Record


class Owner(Protocol):
    """Who a job belongs to: the outbox of its consumer."""

    def put(self, job: Job, /) -> None:
        """Take a finished job. Any thread; never blocks; called once per job."""

    def commit(self, job: Job, effects: Sequence[Effect], *, ack: bool = False) -> None:
        """Block until the effects are stored (and, with `ack`, the message is acknowledged).

        Raises:
            LeaseLost: another worker has the message; nothing was stored.
        """

    async def acommit(self, job: Job, effects: Sequence[Effect], *, ack: bool = False) -> None:
        """As `commit`, for a run on a loop."""


@dataclass(slots=True, eq=False, repr=False, init=False)
class Job:
    """A message in our hands, from fetch until settled; the pool's unit.

    The pool calls `job.plan.run(job)` (or awaits `job.plan.arun(job)`), which returns the outcome
    and never raises on account of user code; then `finish(job, outcome)` exactly once. Where a
    deadline may end the job first, `claims` holds one token and who pops it decides the outcome.
    """

    delivery: Delivery
    plan: Plan
    owner: Owner
    id: str
    data: dict[str, Any]  # the decoded arguments by name, for gates
    extra: Mapping[str, Any]  # the message's control data
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    published_at: float
    started_at: float  # 0.0 unless the plan needs it
    attempt: int  # from 0
    claims: list[None] | None  # None: nobody but the pool ends this job
    acked: bool  # acknowledged before its end
    pushes: Any  # what the run has pushed, `core.pushes.Pushes`; None: nothing yet
    outcome: Outcome
    verdict: Verdict  # these three are the outbox's
    effects: Sequence[Effect]
    tries: int


def finish(job: Job, outcome: Outcome) -> bool:
    """Hand a job's outcome to its owner, once; False when a deadline had done so before."""
    if job.claims is not None:
        try:
            job.claims.pop()
        except IndexError:
            return False
    job.outcome = outcome
    job.owner.put(job)
    return True


Sink: TypeAlias = Callable[[Job, Outcome], Sequence[Effect]]  # pure
Binder: TypeAlias = Callable[
    [dict[str, Any], Sequence[Any]], tuple[Sequence[Any], Mapping[str, Any]]
]


class Report:
    """Is told what becomes of a consumer's messages. Nothing of it raises or blocks for long."""

    def watch(self, plan: Plan, /) -> Plan:
        """Return the plan whose runs are told of."""
        return plan

    def fetched(self, jobs: Sequence[Job], /) -> None:
        """These messages have come; some may get a plan that is measured. The consumer's thread."""

    def retried(self, job: Job, outcome: Retry, /) -> None:
        """An attempt has failed, and another follows. Any thread."""

    def ended(self, job: Job, outcome: Outcome, /) -> None:
        """A message that was no plain success is settled. The outbox's thread."""

    def close(self) -> None:
        """The consumer has stopped."""


class Plan(NamedTuple):
    """Everything decided about a task when its consumer starts; `run.compile_plan` fills in
    `run` or `arun`."""

    name: str  # "" for the only task of a queue
    queue: str
    run: Callable[[Job], Outcome] | None  # for pools of threads, greenlets, or the caller's
    arun: Callable[[Job], Coroutine[Any, Any, Outcome]] | None  # for a loop
    bind: Binder
    sinks: tuple[Sink, ...] = ()
    timeout: float = 0.0  # seconds a run may last; 0: no limit
    kill: bool = True  # raise in a thread that passes it
    keep_failed: bool = True  # as dead letters; else their messages are acknowledged
    place: tuple[str, str] = ("", "")  # of its broker, for what its runs push
    max_age: float = 0.0  # seconds after which a message has expired; 0: never
    policy: RetryPolicy = RetryPolicy()
    early: bool = False  # acknowledge before the run
    priority: int = 0  # of a message that goes back as a new one
    report: Report | None = None
    took: Callable[[float], None] | None = None  # is told how long a run lasted elsewhere
    trace: bool = True  # a message that is given up is told with its traceback


class PoolCapability(enum.Flag):
    """What a pool can do."""

    KILLS = enum.auto()  # ends any run at its deadline, C code too
    GREEN = enum.auto()  # runs under gevent's or eventlet's hub
    COROUTINES = enum.auto()  # awaits `plan.arun`


class Pool(ABC):
    """Where user code runs. It never talks to a broker, and nothing user code raises harms it.

    Several consumers may share a pool; what is waiting is started in the order of submission.
    """

    size: int
    capabilities: ClassVar[PoolCapability] = PoolCapability(0)

    @classmethod
    def build(cls, size: int, options: Any, modules: Sequence[str] = ()) -> Pool:
        """Return a pool as a task's options want it; a pool reads those that concern it.

        `modules` declare the tasks, for a pool whose runs are in other processes.
        """
        return cls(size)  # type: ignore[call-arg]

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> None:
        """Take every job; at most `size` run at once, the rest wait in order. Never blocks."""

    @abstractmethod
    def waiting(self) -> int:
        """Count the jobs that have not started, but those for which a slot is being made."""

    @abstractmethod
    def running(self) -> Collection[Job]:
        """Return the jobs that run now, abandoned ones left out."""

    @abstractmethod
    def withdraw(self, limit: int, owner: Owner | None = None) -> Sequence[Job]:
        """Take back up to `limit` jobs (of this owner) that have not started, the last first."""

    @abstractmethod
    def interrupt(self, job: Job, error: BaseException) -> bool:
        """Ask a running job to end; False when it has ended or cannot be reached.

        With a `Deadline` the run is abandoned, too: its slot no longer counts as one of `size`, up
        to `size` extra ones.
        """

    @abstractmethod
    def close(self, grace: float) -> Collection[Job]:
        """Run what waits, return the jobs alive after `grace` seconds. May be repeated."""

    def abandoned(self) -> int:
        """Count the runs that outlive their deadline."""
        return 0

    def alive(self, within: float) -> bool:
        """Say whether the slots have answered in the last `within` seconds."""
        return True


class Valve(Protocol):
    """How many messages of a queue may be leased now, and when each of them may start."""

    def permits(self, wanted: int, now: float) -> tuple[int, float]:
        """Return (granted <= wanted, seconds until asking again is useful). Reserves nothing."""

    def starts(self, count: int, now: float) -> Sequence[float]:
        """Reserve for the `count` messages that were really fetched; return their instants.

        Instants are of `time.monotonic()`, as `now` is.
        """


class Gate(Protocol):
    """Message -> outcome or pass (None), for a whole batch."""

    def judge(self, batch: Sequence[Job], now: float) -> Sequence[Outcome | None]:
        """Return one answer per job, in order."""
