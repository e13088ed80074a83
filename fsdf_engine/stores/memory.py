"""Results in this process; they end with it."""

from __future__ import annotations

import heapq
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from ..contracts import Inbox, Record, ResultStore
from .base import Deliver, guarded, is_another, replaces

__all__ = ["MemoryStore"]


class MemoryStore(ResultStore):
    """A dict under a lock. A result is delivered by the thread that writes it."""

    def __init__(self, url: str = "") -> None:
        super().__init__(url)
        self._lock = threading.Lock()  # guards everything here
        self._kept: dict[str, tuple[float, Record]] = {}  # with the instant of its end
        self._ends: list[tuple[float, str]] = []  # heap; a rewritten record has stale ones
        self._inboxes: dict[str, _MemoryInbox] = {}
        self._watched: dict[str, set[str]] = {}  # id: addresses

    def write(self, records: Sequence[Record]) -> None:
        now = time.monotonic()
        notices: list[tuple[_MemoryInbox, Record]] = []
        with self._lock:
            self._expire(now)
            for record in records:
                found = map(self._inboxes.get, self._store(record, now + record.expires))
                notices += [(inbox, record) for inbox in found if inbox is not None]
        for inbox, record in notices:
            inbox.deliver(record.id, record.body)

    def _store(self, record: Record, end: float) -> set[str]:
        """Keep the record, if it may be; return the addresses to tell."""
        _, kept = self._kept.get(record.id, (0.0, None))
        if kept is not None and not replaces(kept, record):
            return {record.reply} if record.final and is_another(kept, record) else set()
        self._kept[record.id] = (end, record)
        heapq.heappush(self._ends, (end, record.id))
        return self._watched.pop(record.id, set()) | {record.reply} if record.final else set()

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, id = heapq.heappop(self._ends)
            if id in self._kept and self._kept[id][0] <= now:
                del self._kept[id]

    def read(self, ids: Sequence[str], *, final: bool = False) -> Mapping[str, bytes]:
        with self._lock:
            self._expire(time.monotonic())
            found = [self._kept[id][1] for id in ids if id in self._kept]
        return {record.id: record.body for record in found if record.final or not final}

    def forget(self, ids: Sequence[str]) -> int:
        with self._lock:
            self._expire(time.monotonic())
            return sum(self._kept.pop(id, None) is not None for id in ids)

    def inbox(
        self, deliver: Callable[[str, bytes], None], pending: Callable[[], Sequence[str]]
    ) -> Inbox:
        with self._lock:
            inbox = _MemoryInbox(self, f"memory-{uuid.uuid4().hex}", guarded(deliver))
            self._inboxes[inbox.address] = inbox
        return inbox

    def watch(self, address: str, ids: Sequence[str]) -> list[Record]:
        """Register a waiter; return the final records that are there already."""
        with self._lock:
            self._expire(time.monotonic())
            found = [self._kept[id][1] for id in ids if id in self._kept]
            final = [record for record in found if record.final]
            for id in set(ids).difference(record.id for record in final):
                self._watched.setdefault(id, set()).add(address)
        return final

    def leave(self, address: str) -> None:
        """Forget an inbox and what it watches."""
        with self._lock:
            self._inboxes.pop(address, None)
            for id, addresses in list(self._watched.items()):
                addresses.discard(address)
                if not addresses:
                    del self._watched[id]


class _MemoryInbox(Inbox):
    def __init__(self, store: MemoryStore, address: str, deliver: Deliver) -> None:
        self._store, self.address, self.deliver = store, address, deliver

    def watch(self, ids: Sequence[str]) -> None:
        for record in self._store.watch(self.address, ids):
            self.deliver(record.id, record.body)

    def close(self) -> None:
        self._store.leave(self.address)
