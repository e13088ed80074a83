"""Jobs that wait for a child, and how long runs of their kinds take."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from ..contracts import Job, Owner
from ..core.slots import take_last

__all__ = ["Backlog"]
HAND_OFF = 0.002  # seconds of work that are handed over together
MOST_JOBS, MOST_BYTES = 250, 1 << 16  # of one hand-off
UNKNOWN = 1.0  # seconds; what was never measured counts as long
WEIGHT = 0.2  # of the newest measurement


class Backlog:
    """A line of jobs; one lock guards it. Only the pool's thread learns and takes."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._lock = threading.Lock()
        self._costs: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def extend(self, jobs: Sequence[Job]) -> None:
        """Add jobs at the end. Any thread."""
        with self._lock:
            self._jobs.extend(jobs)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Add jobs at the front: they were first in line before."""
        with self._lock:
            self._jobs.extendleft(reversed(jobs))

    def jobs(self) -> list[Job]:
        """Return what waits. Any thread."""
        with self._lock:
            return list(self._jobs)

    def withdraw(self, limit: int, owner: Owner | None, *, acked: bool) -> list[Job]:
        """Take up to `limit` jobs of this owner (None: of any), the last first. Any thread."""
        with self._lock:
            return take_last(self._jobs, limit, owner, acked=acked)

    def learn(self, job: Job, seconds: float) -> None:
        """Note how long a run took."""
        key = job.plan.queue, job.plan.name
        cost = self._costs.get(key, seconds)
        self._costs[key] = cost + WEIGHT * (seconds - cost)

    def light(self) -> bool | None:
        """Say whether the first in line is short: others may wait behind it. None: nobody waits."""
        with self._lock:
            return self.is_light(self._jobs[0]) if self._jobs else None

    def is_light(self, job: Job) -> bool:
        """Say whether runs of its kind take less than a hand-off."""
        return self._cost(job) <= HAND_OFF

    def together(self, job: Job) -> int:
        """Return how many of its kind make a hand-off; 0: they are long."""
        return min(MOST_JOBS, int(HAND_OFF / max(self._cost(job), 1e-9)))

    def take(self, room: int) -> list[Job]:
        """Take what makes one hand-off: one long job, or short ones, at most `room`."""
        batch: list[Job] = []
        seconds, size = 0.0, 0
        with self._lock:
            while self._jobs and len(batch) < min(MOST_JOBS, room):
                job = self._jobs[0]
                seconds += self._cost(job)
                size += len(job.delivery.body)
                if batch and (seconds > HAND_OFF or size > MOST_BYTES):
                    break
                batch.append(self._jobs.popleft())
        return batch

    def _cost(self, job: Job) -> float:
        return self._costs.get((job.plan.queue, job.plan.name), UNKNOWN)
