"""Composite pool: plain functions in one pool, and beside them coroutine functions in another."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from ..contracts import Job, Owner, Pool, PoolCapability
from ..errors import ConfigurationError

__all__ = ["CompositePool"]


class CompositePool(Pool):
    """Runs each job in the pool of its kind; each has slots of its own, `size` is their sum.

    Raises:
        ConfigurationError: the loop would run among greenlets, all of which asyncio would take for
            code of that loop.
    """

    capabilities = PoolCapability.COROUTINES | PoolCapability.BOTH

    def __init__(self, plain: Pool, coroutines: Pool) -> None:
        if PoolCapability.GREEN in plain.capabilities:
            raise ConfigurationError(
                f"{type(plain).__name__} cannot have coroutines beside it: their loop would take"
                " every greenlet for its own; give `async def` tasks a queue of their own, or use"
                " concurrent_mode=ConcurrentModeEnum.THREADING"
            )
        self.size = plain.size + coroutines.size
        self._plain, self._coroutines = plain, coroutines
        self._parts = plain, coroutines

    def _of(self, job: Job) -> Pool:
        return self._coroutines if job.plan.run is None else self._plain

    def submit(self, jobs: Sequence[Job]) -> None:
        for part in self._parts:
            if own := [job for job in jobs if self._of(job) is part]:
                part.submit(own)

    def waiting(self) -> int:
        return sum(part.waiting() for part in self._parts)

    def running(self) -> Collection[Job]:
        return [job for part in self._parts for job in part.running()]

    def withdraw(
        self, limit: int, owner: Owner | None = None, *, acked: bool = True
    ) -> Sequence[Job]:
        taken: list[Job] = []
        for part in self._parts:
            taken += part.withdraw(limit - len(taken), owner, acked=acked)
        return taken

    def interrupt(self, job: Job, error: BaseException, kill: bool = False) -> bool:
        return self._of(job).interrupt(job, error, kill)

    def close(self, grace: float) -> Collection[Job]:
        end = time.monotonic() + grace
        return [job for p in self._parts for job in p.close(max(0.0, end - time.monotonic()))]

    def lend(self) -> Callable[[], None] | None:
        return self._plain.lend()

    def processes(self) -> Sequence[int]:
        return self._plain.processes()

    def process_of(self, job: Job) -> int:
        return self._of(job).process_of(job)

    def began(self, job: Job) -> float:
        return self._of(job).began(job)

    def room(self, job: Job) -> int:
        part = self._of(job)
        return part.size - part.waiting() - len(part.running())

    def ahead(self, job: Job) -> int:
        return self._of(job).ahead(job)

    def abandoned(self) -> int:
        """More than `spare` also when one of the two has more than it can replace."""
        count = sum(part.abandoned() for part in self._parts)
        full = any(part.abandoned() > part.spare for part in self._parts)
        return max(count, self.spare + 1) if full else count

    def alive(self, within: float) -> bool:
        answers = [part.alive(within) for part in self._parts]  # both are asked
        return all(answers)
