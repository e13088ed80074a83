"""Isolation: what is lost with its worker again and again runs in ever smaller company.

A worker that dies counts against every message it held, and most of these are innocent. Once or
twice is ordinary (a deployment, a machine that restarts). From then on fewer and fewer share a
worker, and at the end the one that kills is convicted alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from ..contracts import Job

__all__ = ["ORDINARY", "Isolation", "company"]
log = logging.getLogger("fsdf.consumer")
ORDINARY = 2  # workers that may be lost with a message before it is suspected
PATIENCE = 10.0  # seconds that a suspect leaves to runs which were there before it


def company(slots: int, lost: int) -> int:
    """Return how many messages may be in a pool with one that was lost so often; an eighth each."""
    return max(1, slots >> 3 * (lost - ORDINARY))


class Isolation:
    """Belongs to a consumer's thread. `most` is how many may be in the pool; 0: no limit."""

    def __init__(self, slots: int, queue: str = "") -> None:
        self.most = 0
        self._slots, self._queue = slots, queue
        self._suspects: Sequence[Job] = ()  # that run under the limit
        self._blocked_at: float | None = None  # since then others leave a suspect no room

    def split(
        self, jobs: Sequence[Job], in_pool: int, now: float
    ) -> tuple[Sequence[Job], Sequence[Job]]:
        """Return (what of a fetch may run now, what has to go back).

        `in_pool` counts those who run already. Without suspects the limit ends.
        """
        lost = max((job.delivery.deliveries for job in jobs), default=0)
        if lost <= ORDINARY:
            self.most, self._suspects, self._blocked_at = 0, (), None
            return jobs, ()
        if not self.most:
            log.warning(
                "queue %s: messages were lost with their workers again and again; they run in ever"
                " smaller groups, to find which of them ends its worker", self._queue,
            )  # fmt: skip
        self.most = company(self._slots, lost)
        allowed = max(self.most - in_pool, int(self._overdue(now)))
        if not allowed:
            return (), jobs
        first = set(sorted(jobs, key=lambda job: -job.delivery.deliveries)[:allowed])
        self._suspects, self._blocked_at = [job for job in jobs if job in first], None
        return self._suspects, [job for job in jobs if job not in first]

    def space(self, in_pool: int, held: Collection[Job], now: float) -> int:
        """Return how many may be fetched under the limit."""
        if in_pool < self.most:
            self._blocked_at = None
        elif any(job in held for job in self._suspects):
            return 0
        return max(self.most - in_pool, int(self._overdue(now)))

    def _overdue(self, now: float) -> bool:
        """Say whether a suspect has waited long enough for others to end."""
        if self._blocked_at is None:
            self._blocked_at = now
        return now - self._blocked_at >= PATIENCE
