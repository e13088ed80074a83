"""A set that forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableSet
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

__all__ = ["LimitedSet"]

Entry = tuple[float, int, Any]


class LimitedSet:
    """A set of at most `maxlen` items, of which those older than `expires` seconds go when another
    one comes, as long as more than `minlen` are there. 0: no limit.

    Ages are of this machine's monotonic clock: what comes from another machine is merged as plain
    items, which are new here.
    """

    __module__ = __name__.replace("._collections.limited", ".collections")

    #: By how many percent the heap may outgrow the set before it is made anew.
    max_heap_percent_overload = 15

    def __init__(
        self,
        maxlen: int | None = 0,
        expires: float | None = 0,
        data: Any = None,
        minlen: int | None = 0,
    ) -> None:
        self.maxlen, self.minlen, self.expires = maxlen or 0, minlen or 0, expires or 0
        # Both hold (when added, a number for those of one instant, item). What was discarded stays
        # in the heap until it comes up there.
        self._data: dict[Any, Entry] = {}
        self._heap: list[Entry] = []
        self._seq = count()
        if not self.maxlen >= self.minlen >= 0:
            raise ValueError(f"minlen is {self.minlen}: it is 0 up to maxlen, {self.maxlen}")
        if self.expires < 0:
            raise ValueError(f"expires is {self.expires}: it cannot be negative")
        if data:
            self.update(data)

    def add(self, item: Any, now: float | None = None) -> None:
        """Add an item, or make it new again."""
        self.discard(item)
        added = time.monotonic() if now is None else float(now)
        entry = self._data[item] = (added, next(self._seq), item)
        heappush(self._heap, entry)
        if self.maxlen and len(self._data) >= self.maxlen:
            self.purge()

    def update(self, other: Any) -> None:
        """Add items, or those of {item: time of adding} and of another set with their ages."""
        if not other:
            return
        if isinstance(other, LimitedSet):
            for added, _, item in sorted(other._data.values(), key=lambda entry: entry[:2]):
                # The numbers are each set's own.
                self._data[item] = (added, next(self._seq), item)
            self._refresh_heap()
            self.purge()
        elif isinstance(other, dict):
            for item, added in other.items():
                stamp = added[0] if isinstance(added, (tuple, list)) else added
                if not isinstance(stamp, float):
                    raise ValueError(f"the time of {item!r} is {stamp!r}: it has to be a float")
                self.add(item, stamp)
        else:
            for item in other:
                self.add(item)

    def discard(self, item: Any) -> None:
        """Take an item away, if it is there."""
        if self._data.pop(item, None) is not None:
            self._maybe_refresh_heap()

    pop_value = discard

    def pop(self, default: Any = None) -> Any:
        """Take the oldest item away and return it."""
        while self._heap:
            entry = heappop(self._heap)
            if self._is_current(entry):
                del self._data[entry[2]]
                return entry[2]
        return default

    def purge(self, now: float | Callable[[], float] | None = None) -> None:
        """Take away what is too much and what is too old."""
        while self.maxlen and len(self._data) > self.maxlen:
            self.pop()
        if not self.expires:
            return
        instant = now() if callable(now) else time.monotonic() if now is None else now
        while len(self._data) > self.minlen:
            oldest = self._heap[0]
            if not self._is_current(oldest):
                heappop(self._heap)
            elif oldest[0] + self.expires > instant:
                break
            else:
                self.pop()

    def clear(self) -> None:
        """Take all away."""
        self._data.clear()
        self._heap.clear()

    def as_dict(self) -> dict[Any, float]:
        """Return {item: time of adding}."""
        return {item: added for added, _, item in self._data.values()}

    def _is_current(self, entry: Entry) -> bool:
        return self._data.get(entry[2]) is entry

    def _refresh_heap(self) -> None:
        self._heap[:] = self._data.values()
        heapify(self._heap)

    def _maybe_refresh_heap(self) -> None:
        if self._heap_overload >= self.max_heap_percent_overload:
            self._refresh_heap()

    @property
    def _heap_overload(self) -> float:
        return len(self._heap) * 100 / max(len(self._data), 1) - 100

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LimitedSet):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Any]:
        return (entry[2] for entry in sorted(self._data.values(), key=lambda entry: entry[:2]))

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: Any) -> bool:
        return key in self._data

    def __bool__(self) -> bool:
        return bool(self._data)

    def __reduce__(self) -> Any:
        return type(self), (self.maxlen, self.expires, self.as_dict(), self.minlen)

    def __repr__(self) -> str:
        limits = f"maxlen={self.maxlen}, expires={self.expires}, minlen={self.minlen}"
        return f"<{type(self).__name__}({len(self)}): {limits}>"


MutableSet.register(LimitedSet)
