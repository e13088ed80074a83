"""What the conformance suite of pools is written with: jobs, their owner, runs that can be held."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ..contracts import Delivery, Effect, Job, Plan, Pool, PoolCapability, finish
from ..green import Event
from ..outcomes import Deadline, Interrupted, Outcome, Succeeded, TimedOut

__all__ = ["BOUND", "RAISED", "Own", "PoolSuite", "Records", "Runs", "eventually"]

BOUND = 20.0  # seconds; only a failing test reaches it


class Own(BaseException):
    """A user's exception outside `Exception`."""


RAISED: tuple[type[BaseException], ...] = (
    ValueError, Own, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration,
    StopAsyncIteration, asyncio.CancelledError, Deadline, Interrupted, MemoryError,
)  # fmt: skip


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition()` holds; for what nothing signals."""
    end, pause = time.monotonic() + BOUND, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        pause.wait(0.002)


class Records:
    """An owner that writes down which jobs ended."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._changed = threading.Condition()

    def put(self, job: Job, /) -> None:
        """Take a finished job."""
        with self._changed:
            self.jobs.append(job)
            self._changed.notify_all()

    def commit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Do nothing."""

    async def acommit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Do nothing."""

    def all_ended(self, jobs: Sequence[Job]) -> None:
        """Wait until these and no others have ended, each exactly once."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.jobs) >= len(jobs), BOUND), (
                f"{len(self.jobs)} of {len(jobs)} jobs have ended"
            )
        assert Counter(map(id, self.jobs)) == Counter(map(id, jobs))


class Runs:
    """What the runs of a test are doing: how many at once, and what holds them back."""

    def __init__(self) -> None:
        self.go = Event()  # gevent's own may lose a waiter whose time ends as it is set
        self.at_once = self.most = self.raised = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Runs:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.at_once -= 1


class PoolSuite:
    """A class of tests over the pool that `make` gives; it has 4 slots."""

    owner: Records

    def make(self, size: int, **options: Any) -> Pool:
        """Return a pool with this many slots."""
        raise NotImplementedError

    @pytest.fixture
    def pool(self) -> Iterator[Pool]:
        self.owner, self.runs, self.asynchronous = Records(), Runs(), False
        pool = self.make(4)
        self.asynchronous = PoolCapability.COROUTINES in pool.capabilities
        yield pool
        self.runs.go.set()
        pool.close(BOUND)

    # ------------------------------------------------------------------ jobs

    def plan(self, fn: Callable[..., Any], *, kill: bool = True) -> Plan:
        """Return a plan that calls `fn`; unlike a compiled one it lets exceptions through."""

        def run(job: Job) -> Outcome:
            return Succeeded(fn(*job.args))

        async def arun(job: Job) -> Outcome:
            value = fn(*job.args)
            if asyncio.iscoroutine(value):
                value = await value
            else:
                await asyncio.sleep(0)
            return Succeeded(value)

        def bind(data: dict[str, Any], args: Sequence[Any]) -> Any:
            return args, data

        return Plan("task", "queue", run, arun, bind, kill=kill)

    def jobs(
        self, fn: Callable[..., Any], *calls: tuple[Any, ...], owner: Any = None, **options: Any
    ) -> list[Job]:
        """Return one job per tuple of arguments."""
        plan, jobs = self.plan(fn, **options), []
        for n, args in enumerate(calls):
            job = Job()
            job.plan, job.args, job.kwargs, job.attempt = plan, args, {}, 0
            job.id, job.delivery, job.owner = str(n), Delivery((0, n), b"{}"), owner or self.owner
            job.claims, job.outcome = None, TimedOut(0.0)
            jobs.append(job)
        return jobs

    def held(self, *args: Any) -> Any:
        """Run until `self.runs.go`; an exception may end it earlier."""
        return self._held(self.runs, False)

    def stubborn(self, *args: Any) -> Any:
        """Run until `self.runs.go`, whatever is raised."""
        return self._held(self.runs, True)

    def _held(self, runs: Runs, stubborn: bool) -> Any:
        def hold() -> None:
            while True:
                try:
                    with runs:
                        while not runs.go.wait(0.002):  # an exception lands between two waits
                            pass
                    return
                except BaseException:
                    runs.raised += 1
                    if not stubborn:
                        raise

        async def ahold() -> None:
            while True:
                try:
                    with runs:
                        while not runs.go.is_set():
                            await asyncio.sleep(0.002)
                    return
                except BaseException:
                    runs.raised += 1
                    if not stubborn:
                        raise

        return ahold() if self.asynchronous else hold()

    def outlives(self, pool: Pool, job: Job) -> None:
        """End a running job as a deadline does."""
        job.claims = [None]
        assert finish(job, TimedOut(1.0))
        before = pool.abandoned()
        pool.interrupt(job, Deadline(), kill=True)
        if job in pool.running():
            eventually(lambda: pool.abandoned() > before or job not in pool.running())

    def works(self, pool: Pool) -> None:
        """Check that every slot is there and runs jobs, and no more than those."""
        self.owner, self.runs = Records(), Runs()
        jobs = self.jobs(self.held, *[(n,) for n in range(pool.size + 2)])
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == pool.size)
        assert pool.waiting() == 2
        assert set(pool.running()) == set(jobs[: pool.size])
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert {type(job.outcome) for job in jobs} == {Succeeded}
        assert self.runs.most == pool.size
        eventually(lambda: not pool.running())
