"""Results in this process; they end with it."""

from __future__ import annotations

import heapq
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from ..contracts import GroupStore, Inbox, Marks, Record, ResultStore
from .base import Deliver, guarded, is_another, replaces
from .memory_groups import MemoryGroups
from .memory_marks import MemoryMarks

__all__ = ["MemoryStore"]


class MemoryStore(ResultStore):
    """A dict under a lock. A result is delivered by the thread that writes it."""

    shared = False

    def __init__(self, url: str = "") -> None:
        super().__init__(url)
        self._marks = MemoryMarks()
        self._lock = threading.Lock()  # guards all that follows
        self._kept: dict[str, tuple[float, Record]] = {}  # by key; with the instant of its end
        self._ends: list[tuple[float, str]] = []  # heap; a rewritten record has stale ones
        self._inboxes: dict[str, _MemoryInbox] = {}
        self._watched: dict[str, set[str]] = {}  # key: addresses
        self._groups = MemoryGroups()

    def write(self, records: Sequence[Record]) -> None:
        now = time.monotonic()
        notices: list[tuple[_MemoryInbox, Record]] = []
        with self._lock:
            self._expire(now)
            for record in records:
                key, end = self.key_of(record.id, record.layout), now + record.expires
                found = map(self._inboxes.get, self._store(key, record, end))
                notices += [(inbox, record) for inbox in found if inbox is not None]
        for inbox, record in notices:
            inbox.deliver(record.id, record.body)

    def _store(self, key: str, record: Record, end: float) -> set[str]:
        """Keep the record, if it may be; return the addresses to tell."""
        _, kept = self._kept.get(key, (0.0, None))
        if kept is not None and not replaces(kept, record):
            return {record.reply} if record.final and is_another(kept, record) else set()
        self._kept[key] = (end, record)
        heapq.heappush(self._ends, (end, key))
        return self._watched.pop(key, set()) | {record.reply} if record.final else set()

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            if key in self._kept and self._kept[key][0] <= now:
                del self._kept[key]

    def read(
        self, ids: Sequence[str], *, final: bool = False, layout: str = ""
    ) -> Mapping[str, bytes]:
        keys = [self.key_of(id, layout) for id in ids]
        with self._lock:
            found = self._found(keys)
        return {record.id: record.body for record in found if record.final or not final}

    def _found(self, keys: Sequence[str]) -> list[Record]:
        """Return what is kept. Under the lock."""
        self._expire(time.monotonic())
        return [self._kept[key][1] for key in keys if key in self._kept]

    def forget(self, ids: Sequence[str], *, layout: str = "") -> int:
        keys = [self.key_of(id, layout) for id in ids]
        with self._lock:
            self._expire(time.monotonic())
            return sum(self._kept.pop(key, None) is not None for key in keys)

    def inbox(
        self,
        deliver: Callable[[str, bytes], None],
        pending: Callable[[], Sequence[str]],
        *,
        layout: str = "",
    ) -> Inbox:
        with self._lock:
            inbox = _MemoryInbox(self, f"memory-{uuid.uuid4().hex}", guarded(deliver), layout)
            self._inboxes[inbox.address] = inbox
        return inbox

    def watch(self, address: str, ids: Sequence[str], layout: str) -> list[Record]:
        """Register a waiter; return the final records that are there already."""
        keys = {self.key_of(id, layout): id for id in ids}
        with self._lock:
            final = [record for record in self._found(list(keys)) if record.final]
            there = {record.id for record in final}
            for key in (key for key, id in keys.items() if id not in there):
                self._watched.setdefault(key, set()).add(address)
        return final

    def leave(self, address: str) -> None:
        """Forget an inbox and what it watches."""
        with self._lock:
            self._inboxes.pop(address, None)
            for key, addresses in list(self._watched.items()):
                addresses.discard(address)
                if not addresses:
                    del self._watched[key]

    def marks(self) -> Marks:
        return self._marks

    def groups(self) -> GroupStore:
        return self._groups


class _MemoryInbox(Inbox):
    def __init__(self, store: MemoryStore, address: str, deliver: Deliver, layout: str) -> None:
        self._store, self.address, self.deliver, self._layout = store, address, deliver, layout

    def watch(self, ids: Sequence[str]) -> None:
        for record in self._store.watch(self.address, ids, self._layout):
            self.deliver(record.id, record.body)

    def close(self) -> None:
        self._store.leave(self.address)
