"""Marks in this process."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Collection, Mapping, Sequence

from ..contracts import Mark, Marks
from .base import LAPSED

__all__ = ["MemoryMarks"]


class MemoryMarks(Marks):
    """A dict and a heap of ends under a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the next three
        self._kept: dict[str, tuple[float, Mark]] = {}  # with the instant of its end
        self._ends: list[tuple[float, str]] = []  # heap; a renewed mark has stale ones
        self._lapsed: set[str] = set()

    def put(self, marks: Sequence[Mark]) -> Collection[str]:
        put = []
        with self._lock:
            now = self._expire()
            for mark in marks:
                if mark.name not in self._kept:
                    self._keep(mark, now + mark.life)
                    put.append(mark.name)
        return put

    def _keep(self, mark: Mark, end: float) -> None:
        self._kept[mark.name] = end, mark
        self._lapsed.discard(mark.name)
        heapq.heappush(self._ends, (end, mark.name))

    def _expire(self) -> float:
        """Remove those that have ended, but the watched ones; return the time."""
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            _, name = heapq.heappop(self._ends)
            end, mark = self._kept.get(name, (now + 1.0, None))
            if end > now or mark is None:
                continue
            if mark.watched:
                self._lapsed.add(name)
            else:
                del self._kept[name]
        return now

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        with self._lock:
            self._expire()
            return {name: self._kept[name][1].value for name in names if name in self._kept}

    def delete(self, names: Sequence[str]) -> int:
        with self._lock:
            self._expire()
            self._lapsed.difference_update(names)
            return sum(self._kept.pop(name, None) is not None for name in names)

    def renew(self, names: Sequence[str], life: float) -> Collection[str]:
        with self._lock:
            now = self._expire()
            found = [name for name in names if name in self._kept]
            for name in found:
                self._keep(self._kept[name][1], now + life)
        return found

    def lapsed(self, life: float, prefix: str = "") -> Sequence[Mark]:
        with self._lock:
            now = self._expire()
            names = [name for name in self._lapsed if name.startswith(prefix)][:LAPSED]
            found = [self._kept[name][1] for name in names]
            for mark in found:
                self._keep(mark, now + life)
        return found
