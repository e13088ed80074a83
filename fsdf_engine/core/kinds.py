"""Plain functions and coroutine functions in one queue: a slot runs one kind only.

What a fetch brings of which kind is seen when it is here. What its kind has no room for goes back
unstarted; from then on no more is fetched than that kind could run, until the queue brings others.
So one kind waits behind the other as messages of a queue do, and none is fetched over and over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..contracts import Job, Pool

__all__ = ["Kinds"]


class Kinds:
    """Belongs to a consumer's thread. `scarce` is a job that found no room; None: all do."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.scarce: Job | None = None

    def space(self, depth: int) -> int:
        """Return how many may be fetched while a kind is scarce."""
        assert self.scarce is not None
        return (self._pool.room(self.scarce) or 0) + depth

    def take_surplus(self, jobs: list[Job], depth: int) -> Sequence[Job]:
        """Take out of a fetch what its kind has no room for, the last first; `depth` may wait."""
        if not jobs or self._pool.room(jobs[0]) is None:
            return ()
        fits = list(self._fits(jobs, depth))
        back = [job for job, fit in zip(jobs, fits) if not fit]
        if back:
            self.scarce = back[0]
        elif self.scarce and all(_is_plain(job) != _is_plain(self.scarce) for job in jobs):
            self.scarce = None
        jobs[:] = [job for job, fit in zip(jobs, fits) if fit]
        return back[::-1]

    def leading(self, line: Sequence[Job], ahead: int) -> int:
        """Return how many of a line, from its first, have room; they leave it in order."""
        if not line or self._pool.room(line[0]) is None:
            return len(line)
        return next((n for n, fits in enumerate(self._fits(line, ahead)) if not fits), len(line))

    def _fits(self, jobs: Iterable[Job], depth: int) -> Iterable[bool]:
        left: dict[bool, int] = {}
        for job in jobs:
            kind = _is_plain(job)
            if kind not in left:
                left[kind] = (self._pool.room(job) or 0) + depth
            left[kind] -= 1
            yield left[kind] >= 0


def _is_plain(job: Job) -> bool:
    return job.plan.run is not None
