"""Limits of runs: one timer thread per consumer, started by the first run that has some."""

from __future__ import annotations

import logging
import math
import threading
import time
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeAlias

from ..contracts import Job, Pool, finish
from ..limits import limits_of
from ..listeners import Listeners
from ..outcomes import Deadline, TimedOut

__all__ = ["Deadlines"]
log = logging.getLogger("fsdf.run")
MOST = 10_000  # entries before those of ended runs are dropped
LONGEST = 3600.0  # seconds of one wait: what is due in a thousand years overflows no timer

# (at, serial, job, attempt, seconds from a soft limit to the hard one; None: it is the hard one);
# the serial tells any two apart before their jobs would be compared
Due: TypeAlias = tuple[float, int, Job, int, float | None]


def _is_over(due: Due) -> bool:
    """Say whether the attempt has ended before its time."""
    _, _, job, attempt, _ = due
    return not job.claims or job.attempt != attempt


class Deadlines:
    """Raises the plan's error in runs that pass their soft limit, and ends those that pass their
    hard one: the outcome is TimedOut at once, whatever the code does.

    Each attempt has one entry in a heap. Entries of ended ones go when they are the first, or when
    they are half of all.
    """

    def __init__(self, pool: Pool, listeners: Listeners | None = None) -> None:
        self._pool, self._listeners = pool, listeners or Listeners()
        self._heap: list[Due] = []
        self._serial = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._most = MOST

    def watch(self, job: Job) -> None:
        """From now on this attempt has its limits. Any thread or loop; does not block for long."""
        soft, hard = limits_of(job)
        if not (soft or hard):
            return
        first, rest = hard, None
        if soft and not 0 < hard <= soft:
            first, rest = soft, (hard or math.inf) - soft
        with self._changed:
            heap = self._heap
            while heap and _is_over(heap[0]):
                heappop(heap)
            if len(heap) > self._most:  # ended ones behind one that hangs
                heap[:] = [due for due in heap if not _is_over(due)]
                heapify(heap)
                self._most = max(MOST, 2 * len(heap))
            due = time.monotonic() + first, next(self._serial), job, job.attempt, rest
            heappush(heap, due)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop, name="fsdf-deadlines", daemon=True
                )
                self._thread.start()
            elif heap[0] is due:
                self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (dues := self._take(time.monotonic())):
                    if self._closed:
                        return
                    wait = self._heap[0][0] - time.monotonic() if self._heap else LONGEST
                    self._changed.wait(min(max(0.0, wait), LONGEST))
            for _, _, job, _, rest in dues:
                self._pass(job, hard=rest is None)

    def _take(self, now: float) -> list[Due]:
        """Take what is due; a soft limit leaves the hard one behind."""
        dues: list[Due] = []
        heap = self._heap
        while heap and (heap[0][0] <= now or _is_over(heap[0])):
            due = heappop(heap)
            if not _is_over(due):
                dues.append(due)
                at, serial, job, attempt, rest = due
                if rest is not None and rest < math.inf:
                    heappush(heap, (at + rest, serial, job, attempt, None))
        return dues

    def _pass(self, job: Job, hard: bool) -> None:
        """Raise in the code, or give the outcome first: the code may not end for long."""
        try:
            if not hard:
                self._pool.interrupt(job, job.plan.soft_error())
                self._listeners.emit("soft_limit_passed", job=job, seconds=limits_of(job)[0])
            elif finish(job, TimedOut(limits_of(job)[1])):
                self._pool.interrupt(job, Deadline(), kill=True)
        except Exception:  # a loop's edge: the other limits must be kept
            log.exception("cannot end a run at its limit")
