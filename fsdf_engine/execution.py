"""The contracts of execution: Job, Plan, Pool, Valve, Gate, Sink.

What exists once per message (Job) is a plain slots class. Import from
`fsdf_engine.contracts`.
"""

from __future__ import annotations

import enum
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from .core.retry import RetryPolicy
from .errors import SoftTimeLimit
from .groups import Member
from .message import FLAT
from .messaging import Delivery, Outgoing
from .outcomes import Outcome, Retry, Verdict
from .records import Record
from .wire import Codec

__all__ = [
    "Binder", "Effect", "Gate", "Job", "Owner", "Plan", "Pool", "PoolCapability", "Report",
    "Runner", "Sink", "Told", "Valve", "finish", "lost_leases",
]  # fmt: skip


Effect: TypeAlias = Outgoing | Record | Member


class Told(NamedTuple):
    """What the sinks made of an outcome where the code ran; `failure` says why the message is kept
    all the same."""

    outcome: Outcome
    effects: Sequence[Effect] = ()
    failure: str = ""


class Owner(Protocol):
    """Who a job belongs to: the outbox of its consumer.

    One that has `counted` set to False is of a broker without COUNTED.
    """

    def put(self, job: Job, /) -> None:
        """Take a finished job. Any thread; never blocks; called once per job."""

    def commit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Block until the effects are stored.

        Raises:
            LeaseLost: another worker has the message; nothing was stored.
        """

    async def acommit(self, job: Job, effects: Sequence[Effect]) -> None:
        """As `commit`, for a run on a loop."""


@dataclass(slots=True, eq=False, repr=False, init=False)
class Job:
    """A message in our hands, from fetch until settled; the pool's unit.

    The pool calls `job.plan.run(job)` (or awaits `job.plan.arun(job)`), which returns the outcome
    and never raises on account of user code; then `finish(job, outcome)` exactly once. A job with
    limits may be ended by a deadline first: its `claims` hold one token, and who pops it decides
    the outcome.
    """

    delivery: Delivery
    plan: Plan
    owner: Owner
    id: str
    codec: Codec  # of the message's form; the last one asked, where none knows it
    extra: dict[str, Any]  # the message's control data, in the words of `fsdf_engine.message`
    kept: Any  # what the codec kept of the message, until its run decodes the arguments
    args: Sequence[Any]  # these two: once the run, or a gate that needs them, has decoded them
    kwargs: Mapping[str, Any]
    published_at: float
    attempt: int  # from 0
    claims: list[None] | None  # None: nobody but the pool ends this job
    acked: bool  # acknowledged before its start: nobody leases it
    pushes: Any  # what the run has pushed, `core.pushes.Pushes`; None: nothing yet
    # The run's, or of a success the JSON of its value, b"" where nothing is to be told; holds for
    # its own outcome, not a deadline's.
    told: Told | bytes | None
    outcome: Outcome
    verdict: Verdict  # these three are the outbox's
    effects: Sequence[Effect]
    tries: int


def finish(job: Job, outcome: Outcome, *, here: bool = False) -> bool:
    """Hand a job's outcome to its owner, once; False when a deadline had done so before.

    `here`: the calling thread is not needed elsewhere, and may be kept by storing it.
    """
    if job.claims is not None:
        try:
            job.claims.pop()
        except IndexError:
            return False
    job.outcome = outcome
    (getattr(job.owner, "put_and_store", job.owner.put) if here else job.owner.put)(job)
    return True


def lost_leases(job: Job) -> int:
    """Count the leases of a message that were surely lost; of a broker without COUNTED it is 0."""
    return job.delivery.deliveries if getattr(job.owner, "counted", True) else 0


# Pure. Called where the code ran, in a child too, as part of the run; in the outbox only for what
# ended a message from outside: from the envelope, with no value and no exception of the user's.
# What it makes is checked. Where one with an attribute `of_json` is the only one, this is called of
# successes in its place, in the outbox: with jobs, of which each `told` is the JSON of the value,
# and the instant; it gives the effects of each, which are not checked.
# One that tells of members has an attribute `of_end`: called with a job and the body of its stored
# end, it gives what the groups are told by who finds that a worker died between the two. Who does
# so asks a sink for what it would store of a loss, to learn in which layout an end is; of one whose
# attribute `layout_of` says that, called with a job (None: nothing is stored), only this.
Sink: TypeAlias = Callable[[Job, Outcome], Sequence[Effect]]
# Drives an attempt in place of the engine. Called where the code runs, with the job, the arguments
# of which are decoded, and the function, which it may call; awaited where that is a coroutine's.
# `job.owner` commits effects on the way. What it returns is the outcome; or of a success a `Told`
# with its effects, for which no sink is asked, or bytes: what `of_json` of the only sink is to find
# in `told`. `plan.policy` says what an error of the function's would be. What it raises, or returns
# that is none, ends the run as failed; only what is raised in it from outside (limits, a stop) it
# has to let through.
Runner: TypeAlias = Callable[[Job, Callable[..., Any]], Any]
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
    bind: Binder  # of arguments by name, for the engine's own wire form
    sinks: tuple[Sink, ...] = ()
    timeout: float = 0.0  # seconds an attempt may last; 0: no limit
    kill: bool = True  # raise in a thread that passes it
    keep_failed: bool = True  # as dead letters; else their messages are acknowledged
    place: tuple[str, str] = ("", "")  # of its broker, for what its runs push
    max_age: float = 0.0  # seconds after which a message has expired; 0: never
    policy: RetryPolicy = RetryPolicy()
    early: bool = False  # acknowledge before the start
    report: Report | None = None
    took: Callable[[float], None] | None = None  # is told how long a run lasted elsewhere
    trace: bool = True  # a message that is given up is told with its traceback
    soft: float = 0.0  # seconds after which `soft_error` is raised in an attempt; 0: never
    codecs: tuple[Codec, ...] = (FLAT,)  # by which a child process opens its messages
    gate: Gate | None = None  # its own: asked when a message comes, and again while it waits here
    runner: Runner | None = None  # called in place of the function
    emit: Callable[..., None] | None = None  # tells listeners of its runs' starts and retries
    warns: Callable[..., None] | None = None  # tells them of soft limits, if a pool has its own
    soft_error: type[BaseException] = SoftTimeLimit  # a layer's own, made without arguments
    resolver: str = ""  # by which a child process finds it, "module:function"; else by its pool's


class PoolCapability(enum.Flag):
    """What a pool can do."""

    KILLS = enum.auto()  # ends any run at its deadline, C code too
    GREEN = enum.auto()  # runs under gevent's or eventlet's hub
    COROUTINES = enum.auto()  # awaits `plan.arun`
    BOTH = enum.auto()  # runs plain functions and coroutine functions


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

    def follow(self, jobs: Sequence[Job]) -> None:
        """As `submit`, called where a run has just ended: what ran that is free for one of them."""
        self.submit(jobs)

    @abstractmethod
    def waiting(self) -> int:
        """Count the jobs that have not started, but those for which a slot is being made."""

    @abstractmethod
    def running(self) -> Collection[Job]:
        """Return the jobs that run now, abandoned ones left out."""

    @abstractmethod
    def withdraw(
        self, limit: int, owner: Owner | None = None, *, acked: bool = True
    ) -> Sequence[Job]:
        """Take back up to `limit` jobs (of this owner) that have not started, the last first.

        Without `acked` only those whose messages can be released.
        """

    @abstractmethod
    def interrupt(self, job: Job, error: BaseException, kill: bool = False) -> bool:
        """Raise an exception in a running job; False when it has ended or cannot be reached.

        It is of the very class of `error`, and arrives where the pool can raise something next. The
        run may catch it and go on. With `kill` it is to end now, and nothing is raised in it after
        that; with a `Deadline`, too, it is abandoned: its slot no longer counts as one of `size`,
        up to `spare` extra ones. Without `kill` a pool need only reach jobs that have `claims`.
        """

    @abstractmethod
    def close(self, grace: float) -> Collection[Job]:
        """Run what waits, return the jobs alive after `grace` seconds. May be repeated."""

    def lend(self) -> Callable[[], None] | None:
        """Reserve the calling thread for the runs, before the first job is submitted.

        Return what runs them there, one at a time; it blocks until `close`, and nothing runs before
        it is called. None: this pool has threads of its own, and takes no other.
        """
        return None

    def processes(self) -> Sequence[int]:
        """Return the ids of the child processes that run jobs, where there are some."""
        return ()

    def process_of(self, job: Job) -> int:
        """Return the id of the process that has a job."""
        return os.getpid()

    def began(self, job: Job) -> float:
        """Return the instant (`time.monotonic`) at which the run of a job began; 0.0: unknown."""
        return 0.0

    def ahead(self, job: Job) -> int:
        """Say how many such jobs, beyond one for each slot, the pool needs to keep them busy."""
        return 0

    def room(self, job: Job) -> int | None:
        """Count the slots free for jobs of this one's kind; below 0: so many wait.

        A job that starts right now may be missed. None, if any job may have any slot.
        """
        return None

    def abandoned(self) -> int:
        """Count the runs that outlive their deadline."""
        return 0

    @property
    def spare(self) -> int:
        """How many of these others replace; with more of them nothing is fetched for a while."""
        return self.size

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
    """Message -> outcome or pass (None), for a whole batch.

    It sees the envelope; one with a true attribute `needs_arguments` also `args` and `kwargs`,
    decoded for it in the consumer's thread.
    """

    def judge(self, batch: Sequence[Job], now: float) -> Sequence[Outcome | None]:
        """Return one answer per job, in order."""
