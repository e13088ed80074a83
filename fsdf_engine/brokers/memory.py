"""In-process broker: the reference that the conformance suite is written against.

A deque per priority, a heap of what is delayed and a dict of leased batches, under one Condition.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence

from ..contracts import (
    Again,
    Broker,
    Capability,
    DeadMessage,
    Delivery,
    LeaseId,
    Letter,
    Outgoing,
    Part,
    QueueSize,
    Settlement,
    Subscription,
    line_of,
    unchanged,
)  # fmt: skip
from ..outcomes import Ack, DeadLetter, Release, State, Verdict

__all__ = ["MemoryBroker"]


class _Entry:
    __slots__ = ("body", "deliveries", "headers", "id", "priority", "state")

    def __init__(self, id: str, item: Outgoing | Letter) -> None:
        self.id, self.body, self.headers = id, item.body, item.headers
        self.priority, self.deliveries = line_of(item.priority), 0
        self.state: State | None = None


class _Batch:
    """What one fetch leased: one deadline, and what of it is unsettled."""

    __slots__ = ("end", "left")

    def __init__(self, end: float, left: dict[int, _Entry]) -> None:
        self.end, self.left = end, left


class _Queue:
    def __init__(self) -> None:
        self.changed = threading.Condition()  # guards everything here
        self.ready: dict[int, deque[_Entry]] = {}  # by priority
        self.delayed: list[tuple[float, int, _Entry]] = []
        self.batches: dict[int, _Batch] = {}
        self.dead: dict[str, tuple[_Entry, DeadMessage]] = {}
        self.ids = itertools.count(1)

    def add(self, entry: _Entry, delay: float = 0.0, *, first: bool = False) -> None:
        if delay > 0:
            heapq.heappush(self.delayed, (time.time() + delay, next(self.ids), entry))
            return
        line = self.ready.setdefault(entry.priority, deque())
        line.appendleft(entry) if first else line.append(entry)

    def promote(self) -> float:
        """Move due and orphaned messages to ready; return when to look again."""
        now = time.time()
        while self.delayed and self.delayed[0][0] <= now:
            self.add(heapq.heappop(self.delayed)[2])
        look = self.delayed[0][0] if self.delayed else now + 3600
        for token, batch in list(self.batches.items()):
            if batch.end > now:
                look = min(look, batch.end)
                continue
            del self.batches[token]
            for _, entry in sorted(batch.left.items(), reverse=True):
                entry.deliveries += 1
                self.add(entry, first=True)
        return look

    def take(self, limit: int, max_bytes: int) -> list[_Entry]:
        taken: list[_Entry] = []
        for priority in sorted(self.ready, reverse=True):
            line = self.ready[priority]
            while line and len(taken) < limit and (max_bytes > 0 or not taken):
                taken.append(line.popleft())
                max_bytes -= len(taken[-1].body)
        return taken

    def end(self, entry: _Entry, verdict: Verdict) -> None:
        match verdict:
            case Release(delay, state):
                entry.state = state
                self.add(entry, delay, first=True)
            case DeadLetter(reason, trace):
                self.bury(entry, reason, trace)

    def bury(self, entry: _Entry, reason: str, trace: str, *, once: bool = False) -> None:
        name = entry.id
        while found := self.dead.get(name):
            if once and found[0].body == entry.body:
                return
            name += "_"
        self.dead[name] = (entry, DeadMessage(name, entry.body, reason, trace, time.time()))


class MemoryBroker(Broker):
    """Queues of this process; they end with it."""

    capabilities: Capability = (
        Capability.LEASE | Capability.DELAY | Capability.PRIORITY | Capability.DEAD_LETTER
        | Capability.SIZE | Capability.ORDERED | Capability.GREEN_SAFE
        | Capability.PULL | Capability.TIMED | Capability.COUNTED | Capability.BROWSE
        | Capability.ATOMIC | Capability.SIZE_LEASED | Capability.LISTED
    )  # fmt: skip

    def __init__(self, url: str = "") -> None:
        super().__init__(url)
        self._queues: dict[str, _Queue] = {}

    @property
    def address(self) -> str:
        return "of this process"

    def _queue(self, name: str) -> _Queue:
        return self._queues.get(name) or self._queues.setdefault(name, _Queue())

    def publish(self, batch: Sequence[Outgoing]) -> None:
        now = time.time()
        for name in dict.fromkeys([item.queue for item in batch]):
            queue = self._queue(name)
            with queue.changed:
                for item in batch:
                    if item.queue == name:
                        delay = item.delay or (item.not_before and item.not_before - now)
                        entry = _Entry(f"{next(queue.ids)}", item)
                        queue.add(entry, delay, first=delay < 0)
                queue.changed.notify_all()

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _MemorySubscription(self._queue(queue), lease)

    def size(self, queue: str) -> QueueSize:
        q = self._queue(queue)
        with q.changed:
            q.promote()
            leased = sum(len(batch.left) for batch in q.batches.values())
            return QueueSize(sum(map(len, q.ready.values())), len(q.delayed), leased, len(q.dead))

    def queues(self) -> Sequence[str]:
        return sorted(name for name in list(self._queues) if any(self.size(name)))

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        q, count = self._queue(queue), 0
        with q.changed:
            if Part.WAITING in parts:
                count += sum(map(len, q.ready.values()))
                q.ready.clear()
            if Part.DELAYED in parts:
                count += len(q.delayed)
                q.delayed.clear()
            if Part.LEASED in parts:
                count += sum(len(batch.left) for batch in q.batches.values())
                q.batches.clear()
            if Part.DEAD in parts:
                count += len(q.dead)
                q.dead.clear()
        return count

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        q = self._queue(queue)
        with q.changed:
            letters = [letter for _, letter in reversed(q.dead.values())]
        return letters[offset : offset + limit]

    def delayed(self, queue: str, limit: int = 100) -> Sequence[Outgoing]:
        q = self._queue(queue)
        with q.changed:
            q.promote()
            found = heapq.nsmallest(limit, q.delayed)
        return [
            Outgoing(queue, e.id, e.body, e.headers, not_before=due, priority=e.priority)
            for due, _, e in found
        ]

    def bury(self, batch: Sequence[Letter]) -> None:
        for item in batch:
            queue = self._queue(item.queue)
            with queue.changed:
                queue.bury(_Entry(item.id, item), item.reason, item.trace, once=True)

    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        q = self._queue(queue)
        with q.changed:
            wanted: Iterable[str] = list(q.dead) if ids is None else ids
            entries = [found[0] for id in wanted if (found := q.dead.pop(id, None))]
            for entry in entries:
                entry.id, entry.body = f"{next(q.ids)}", again(entry.body, entry.headers)
                entry.deliveries, entry.state = 0, None
                q.add(entry)
            q.changed.notify_all()
        return len(entries)


class _MemorySubscription(Subscription):
    def __init__(self, queue: _Queue, lease: float) -> None:
        self._queue, self._lease = queue, lease
        self._woken = False

    def wait(self, timeout: float) -> None:
        deadline = time.time() + timeout
        with self._queue.changed:
            while not self._woken:
                look = min(self._queue.promote(), deadline)
                if any(self._queue.ready.values()) or time.time() >= deadline:
                    break
                self._queue.changed.wait(max(0.0, look - time.time()))
            self._woken = False

    def wake(self) -> None:
        with self._queue.changed:
            self._woken = True
            self._queue.changed.notify_all()

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        queue = self._queue
        with queue.changed:
            queue.promote()
            if not (entries := queue.take(limit, max_bytes)):
                return ()
            token, end = next(queue.ids), time.time() + self._lease
            queue.batches[token] = _Batch(end, dict(enumerate(entries)))
        return [
            Delivery((token, n), e.body, e.id, e.deliveries, e.state, e.headers, 0.0, e.priority)
            for n, e in enumerate(entries)
        ]

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        lost: list[LeaseId] = []
        queue, changed = self._queue, False
        with queue.changed:
            for lease, verdict in batch:
                token, index = lease
                owner = queue.batches.get(token)
                if owner is None or (entry := owner.left.pop(index, None)) is None:
                    lost.append(lease)
                    continue
                if not owner.left:
                    del queue.batches[token]
                if type(verdict) is not Ack:
                    queue.end(entry, verdict)
                    changed = True
            if changed:
                queue.changed.notify_all()
        return lost

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        with self._queue.changed:
            batches, end = self._queue.batches, time.time() + self._lease
            kept = [x for x in leases if x[0] in batches and x[1] in batches[x[0]].left]
            for token in {x[0] for x in kept}:
                batches[token].end = end
            return kept

    def close(self) -> None:
        self.wake()
