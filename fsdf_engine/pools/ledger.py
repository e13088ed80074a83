"""The memory that a process pool's parent shares with one child: what has started and ended.

It outlives the child, so that a killed one loses exactly the run that it had started: outcomes are
written here before the next run starts. The lock decides between the child that starts a run and
the parent that takes it back or ends it; each side holds it for less than a microsecond.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

__all__ = ["Ledger"]
STARTED, WRITTEN, READ, TAKEN = range(4)  # words
_SINCE = 4  # as a double
INTERRUPTED = 5
_NAME = slice(64, 512)  # of an exception's class
_HEAD = 512
LOCKED = 0.05  # how long a child may keep the lock
SPACE = 1 << 20  # bytes of outcomes that the parent has not read


class Ledger:
    """Words and a ring of bytes. The child calls start, write; the parent the rest.

    Jobs are numbered from 1, ascending. Pickled only while a child is being started.
    """

    def __init__(self, context: BaseContext) -> None:
        self._told = 0  # the child's: how much it has said that there is
        self._array: Any = context.RawArray("B", _HEAD + SPACE)
        self.lock: Any = context.Lock()
        self._map()

    def _map(self) -> None:
        whole = memoryview(self._array).cast("B")
        self._words = whole[:_HEAD].cast("Q")
        self._since = whole[:_HEAD].cast("d")
        self._name, self._ring = whole[_NAME], whole[_HEAD:]

    def __getstate__(self) -> tuple[Any, Any]:
        return self._array, self.lock

    def __setstate__(self, state: tuple[Any, Any]) -> None:
        self._told, (self._array, self.lock) = 0, state
        self._map()

    # The child's side

    def start(self, number: int) -> bool:
        """Mark a run as started; False when the parent has taken the job back."""
        with self.lock:
            if number <= self._words[TAKEN]:
                return False
            self._since[_SINCE] = time.monotonic()  # first: no run seems older than it is
            self._words[STARTED] = number
            return True

    def restart(self, delay: float) -> None:
        """Count the time of the current run anew: another attempt begins in so many seconds.

        An exception for the one before is not for this one.
        """
        with self.lock:
            self._since[_SINCE] = time.monotonic() + delay
            self._words[INTERRUPTED] = 0

    def interrupted(self) -> int:
        """Return the number of the run in which an exception is to be raised."""
        return self._words[INTERRUPTED]

    def wanted(self) -> str:
        """Return the class of that exception, as "module:name"."""
        return bytes(self._name).decode(errors="replace").strip()

    def write(self, report: bytes) -> bool:
        """Store an outcome; False when there is no room, because the parent is slow."""
        words, ring = self._words, self._ring
        written, size = words[WRITTEN], len(report)
        if written - words[READ] + size > SPACE:
            return False
        at = written % SPACE
        if at + size <= SPACE:
            ring[at : at + size] = report
        else:
            first = SPACE - at
            ring[at:] = report[:first]
            ring[: size - first] = report[first:]
        words[WRITTEN] = written + size  # last: what is counted is whole
        return True

    def fills(self) -> bool:
        """Say whether the parent should read before the hand-off is done; true once per half."""
        return self._words[WRITTEN] - self._told > SPACE // 2

    def written(self) -> int:
        """Return how many bytes of outcomes there have been, for the parent to be told."""
        self._told = self._words[WRITTEN]
        return self._told

    # The parent's side

    def read(self, written: int | None = None) -> bytes:
        """Return the outcomes up to the position `written` (by default all) not read before."""
        words, ring = self._words, self._ring
        end = words[WRITTEN] if written is None else written
        begin = words[READ]
        if begin >= end:
            return b""
        first, last = begin % SPACE, end % SPACE
        data = bytes(ring[first:last]) if first < last else bytes(ring[first:]) + bytes(ring[:last])
        words[READ] = end
        return data

    def started(self) -> int:
        """Return the number of the job started last."""
        return self._words[STARTED]

    def since(self) -> float:
        """Return the instant (`time.monotonic`) of its start."""
        return self._since[_SINCE]

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Try to hold the lock meanwhile; False when somebody has stopped the child that has it."""
        locked: bool = self.lock.acquire(timeout=LOCKED)
        try:
            yield locked
        finally:
            if locked:
                self.lock.release()

    def interrupt(self, error: BaseException) -> None:
        """Say that `type(error)` is to be raised in the run. Call it with the lock held."""
        name = f"{type(error).__module__}:{type(error).__qualname__}".encode(errors="replace")
        self._name[:] = name.ljust(len(self._name))[: len(self._name)]
        self._words[INTERRUPTED] = self._words[STARTED]

    def take_back(self, last: int) -> None:
        """Keep the child from starting any job up to `last`. Call it with the lock held."""
        self._words[TAKEN] = last
