"""Deadlines of runs: one timer thread per consumer, started by the first run that has one."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from ..contracts import Job, Pool, finish
from ..outcomes import Deadline, TimedOut

__all__ = ["Deadlines"]
log = logging.getLogger("fsdf.run")
MOST = 10_000  # entries of a line before those of ended runs are dropped


class Deadlines:
    """Ends runs that pass their timeout: the outcome is TimedOut at once, whatever the code does.

    All runs of a task have one timeout, so each task has a line that is in order by itself.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lines: dict[float, deque[tuple[float, Job, int]]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._most = MOST

    def watch(self, job: Job) -> None:
        """From now on this attempt has its timeout. Any thread or loop; does not block for long."""
        timeout = job.plan.timeout
        at = time.monotonic() + timeout
        with self._changed:
            line = self._lines.setdefault(timeout, deque())
            while line and not line[0][1].claims:  # ended before its time
                line.popleft()
            if len(line) > self._most:  # ended ones behind one that hangs
                line = self._lines[timeout] = deque(entry for entry in line if entry[1].claims)
                self._most = max(MOST, 2 * len(line))
            line.append((at, job, job.attempt))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop, name="fsdf-deadlines", daemon=True
                )
                self._thread.start()
            elif len(line) == 1:
                self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (due := self._take(time.monotonic())):
                    if self._closed:
                        return
                    heads = [line[0][0] for line in self._lines.values() if line]
                    self._changed.wait(max(0.0, min(heads) - time.monotonic()) if heads else None)
            for job in due:
                self._end(job)

    def _take(self, now: float) -> list[Job]:
        due: list[Job] = []
        for line in self._lines.values():
            while line and (line[0][0] <= now or not line[0][1].claims):
                _, job, attempt = line.popleft()
                if job.claims and job.attempt == attempt:
                    due.append(job)
        return due

    def _end(self, job: Job) -> None:
        """Give the outcome first: the code may not end for long."""
        try:
            if finish(job, TimedOut(job.plan.timeout)):
                self._pool.interrupt(job, Deadline())
        except Exception:  # a loop's edge: the other deadlines must be kept
            log.exception("cannot end a run at its deadline")
