"""Buffers that let the oldest go."""

from __future__ import annotations

from collections import OrderedDict as _OrderedDict
from collections import deque as _deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from queue import Empty
from typing import Any

__all__ = ["BufferMap", "Evictable", "Messagebuffer", "OrderedDict"]

_HOME = __name__.replace("._collections.buffers", ".collections")


class OrderedDict(_OrderedDict):
    """A dict that knows the key that was used least recently."""

    __module__ = _HOME

    def _LRUkey(self) -> Any:
        return next(iter(self))


class Evictable:
    """What lets items go until it is no longer than `maxsize`."""

    __module__ = _HOME
    Empty = Empty
    maxsize: Any

    def evict(self) -> None:
        """Let go all that is too much."""
        self._evict(range=count)

    def _evict(self, limit: int = 100, range: Any = range) -> None:
        for _ in range(limit):
            if self._evictcount <= self.maxsize:
                return
            try:
                self._pop_to_evict()
            except self.Empty:
                return

    def _pop_to_evict(self) -> Any:
        raise NotImplementedError

    @property
    def _evictcount(self) -> int:
        return len(self)  # type: ignore[arg-type]


class Messagebuffer(Evictable):
    """A line of at most `maxsize` items, of which the oldest go."""

    __module__ = _HOME

    def __init__(self, maxsize: Any, iterable: Any = None, deque: Any = _deque) -> None:
        self.maxsize = maxsize
        self.data = deque(iterable or [])

    def put(self, item: Any) -> None:
        self.data.append(item)
        if self.maxsize:
            self._evict()

    def extend(self, it: Iterable[Any]) -> None:
        self.data.extend(it)
        if self.maxsize:
            self._evict()

    def take(self, *default: Any) -> Any:
        """Take the oldest away.

        Raises: Empty: there is none, and no default.
        """
        try:
            return self.data.popleft()
        except IndexError:
            if default:
                return default[0]
            raise self.Empty from None

    def _pop_to_evict(self) -> Any:
        return self.take()

    def __iter__(self) -> Iterator[Any]:
        while self.data:
            yield self.data.popleft()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)}/{self.maxsize}>"

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, item: Any) -> bool:
        return item in self.data

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self.data)

    def __getitem__(self, index: Any) -> Any:
        return self.data[index]


Sequence.register(Messagebuffer)


class BufferMap(OrderedDict, Evictable):
    """A line for each key. Of all together, at most `maxsize` items stay: those of the key go that
    was used least recently; of one, `bufmaxsize`.
    """

    __module__ = _HOME
    Buffer = Messagebuffer
    maxsize: Any = None
    bufmaxsize: Any = None
    total = 0

    def __init__(self, maxsize: Any, iterable: Any = None, bufmaxsize: Any = 1000) -> None:
        super().__init__()
        self.maxsize, self.bufmaxsize = maxsize, bufmaxsize
        for key, items in dict(iterable or {}).items():
            self._get_or_create_buffer(key).extend(items)
        self.total = sum(map(len, self.values()))
        if self.maxsize:
            self.evict()

    def put(self, key: Any, item: Any) -> None:
        self._grow(key, [item])
        self.move_to_end(key)
        if self.maxsize:
            self._evict()

    def extend(self, key: Any, it: Iterable[Any]) -> None:
        self._grow(key, it)
        if self.maxsize:
            self._evict()

    def _grow(self, key: Any, it: Iterable[Any]) -> None:
        buffer = self._get_or_create_buffer(key)
        before = len(buffer)
        buffer.extend(it)
        self.total += len(buffer) - before

    def take(self, key: Any, *default: Any) -> Any:
        """Take the oldest item of a key away.

        Raises: Empty: there is none, and no default.
        """
        try:
            item = self[key].take()
        except (KeyError, self.Empty):
            if default:
                return default[0]
            raise self.Empty from None
        self.total -= 1
        self.move_to_end(key)
        return item

    def _get_or_create_buffer(self, key: Any) -> Messagebuffer:
        if key not in self:
            self[key] = self._new_buffer()
        return self[key]

    def _new_buffer(self) -> Messagebuffer:
        return self.Buffer(maxsize=self.bufmaxsize)

    def _LRUpop(self, *default: Any) -> Any:
        return self[self._LRUkey()].take(*default)

    def _pop_to_evict(self) -> None:
        """Drop an item of the key used least recently, which then is the last; empty ones go."""
        while self:
            key = self._LRUkey()
            buffer = self[key]
            if buffer:
                buffer.take()
                self.total -= 1
            if buffer:
                self.move_to_end(key)
                return
            del self[key]
            if self._evictcount <= self.maxsize:
                return

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.total}/{self.maxsize}>"

    @property
    def _evictcount(self) -> int:
        return self.total
