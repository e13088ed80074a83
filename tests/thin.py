"""Brokers that lack capabilities, over the in-process one: what foreign protocols are like.

A `ThinBroker` has everything that memory has, but what it `lacks`; and where something is lacking,
it is as bad as the contract allows. So what the engine and the suite do without a flag is tested
apart from any server.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from functools import reduce

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import (
    Broker,
    Capability,
    Delivery,
    Letter,
    Outgoing,
    Part,
    QueueSize,
    Subscription,
    unchanged,
)
from fsdf_engine.errors import PublishError
from fsdf_engine.outcomes import ACK, DeadLetter, Release

__all__ = ["ALL", "LACKS", "NamedThinBroker", "ThinBroker"]
MB = 1 << 20
FAR = 1e6  # seconds of a lease that does not end by time
SEEN = 1000  # dead letters that are seen without BROWSE
MORE = 5  # messages that are sent beyond those that are asked for
LACKS = {
    "pull": Capability.PULL,
    "timed": Capability.TIMED,
    "counted": Capability.COUNTED,
    "browse": Capability.BROWSE,
    "atomic": Capability.ATOMIC,
    "size_leased": Capability.SIZE_LEASED,
    "listed": Capability.LISTED,
    "ordered": Capability.ORDERED,
    "priority": Capability.PRIORITY,
    "delay": Capability.DELAY,
}
# What AMQP has, where the server is old: a copy may be the last in line, so nothing is in order.
ALL = reduce(lambda a, b: a | b, LACKS.values()) & ~Capability.DELAY
LACKS |= {"all": ALL, "all and delay": ALL | Capability.DELAY}


class ThinBroker(Broker):
    """Queues of this process. `between` is called when a copy is stored and its message is not
    settled yet."""

    capabilities = MemoryBroker.capabilities

    def __init__(self, lacks: Capability = ALL) -> None:
        super().__init__("thin")
        self.inner = MemoryBroker()
        self.capabilities = MemoryBroker.capabilities & ~lacks
        self.between = lambda: None
        self.guard = threading.RLock()  # of the subscriptions
        self.subscriptions: dict[str, list[_Subscription]] = {}
        self.released: Counter[str] = (
            Counter()
        )  # how often a message was given back, without COUNTED
        self._reader = threading.Lock()

    @property
    def address(self):
        return "thin"

    def has(self, capability):
        return capability in self.capabilities

    def publish(self, batch):
        late = [o for o in batch if o.delay or o.not_before > time.time()]
        refused = [] if self.has(Capability.DELAY) else late
        if not self.has(Capability.PRIORITY):
            batch = [replace(outgoing, priority=0) for outgoing in batch]
        ids = {id(outgoing) for outgoing in refused}
        self.inner.publish([outgoing for outgoing in batch if id(outgoing) not in ids])
        if refused:
            raise PublishError(refused)

    def subscribe(self, queue, *, lease):
        sub = _Subscription(self, queue, lease)
        self.subscriptions.setdefault(queue, []).append(sub)
        return sub

    def size(self, queue):
        with self.guard:
            waiting, delayed, leased, dead = self.inner.size(queue)
            sent = sum(len(sub.sent) for sub in self.subscriptions.get(queue, ()))
            late = sum(len(sub.late) for sub in self.subscriptions.get(queue, ()))
        leased = leased - sent - late if self.has(Capability.SIZE_LEASED) else -1
        return QueueSize(waiting + sent, delayed + late, leased, dead)

    def queues(self):
        return self.inner.queues() if self.has(Capability.LISTED) else ()

    def purge(self, queue, parts=Part.WAITING | Part.DELAYED):
        if not self.has(Capability.SIZE_LEASED):
            parts &= ~Part.LEASED
        return self.inner.purge(queue, parts)

    def dead_letters(self, queue, limit=100, offset=0):
        if self.has(Capability.BROWSE):
            return self.inner.dead_letters(queue, limit, offset)
        with self._reader:
            newer = max(0, self.inner.size(queue).dead - SEEN)
            return self.inner.dead_letters(queue, SEEN, newer)[offset : offset + limit]

    def bury(self, batch):
        self.inner.bury(batch)

    def replay(self, queue, ids=None, again=unchanged):
        if ids is not None and not self.has(Capability.BROWSE):
            seen = {letter.id for letter in self.dead_letters(queue, SEEN)}
            ids = [id for id in ids if id in seen]

        def coded(body, headers):
            return again(body, _decoded(headers)[0])

        count = self.inner.replay(queue, ids, coded)
        return count

    def close(self):
        self.inner.close()


class NamedThinBroker(ThinBroker):
    """As an engine makes it: all is lacking, and no other process sees its queues."""

    def __init__(self, url):
        super().__init__()


class _Subscription(Subscription):
    """What was sent to it is in `sent`, what it has handed out in `held`, by lease."""

    def __init__(self, broker, queue, lease):
        self._broker, self._queue, self._lease = broker, queue, lease
        self._timed, self._pulls = broker.has(Capability.TIMED), broker.has(Capability.PULL)
        self._inner = broker.inner.subscribe(queue, lease=lease if self._timed else FAR)
        self.sent: deque[Delivery] = deque()
        self.held: dict[object, Delivery] = {}
        self._changed = threading.Condition(broker.guard)
        self.late: list[tuple[float, Delivery]] = []  # released with a delay, without DELAY
        self._most = 0  # unsettled messages that it may have; 0: it rests
        self._woken = self._closed = False
        self._sender: threading.Thread | None = None

    # ------------------------------------------------------------------ what is sent

    def _begin(self, most):
        self._most = most
        self._changed.notify_all()
        if self._sender is None:
            self._sender = threading.Thread(target=self._send_all, daemon=True)
            self._sender.start()

    def _send(self):
        """Take what there is room for; each is a lease of its own, but of very many."""
        some = False
        while (room := self._most - len(self.held) - len(self.sent)) > 0:
            if not (found := self._inner.fetch(1 if room < 100 else room, 100 * MB)):
                break
            self.sent += found
            some = True
        if some:
            self._changed.notify_all()

    def _send_all(self):
        """Be the server: send whenever something is there, and there is room."""
        while not self._closed:
            self._inner.wait(min(self._lease / 3, 5.0))
            with self._changed:
                if self._timed and self.sent:
                    self._inner.extend([d.lease for d in self.sent])
                self._send()
                while not (self._closed or len(self.held) + len(self.sent) < self._most):
                    self._changed.wait(self._lease / 3 if self._timed and self.sent else None)
                    if self._timed and self.sent:
                        self._inner.extend([d.lease for d in self.sent])

    def rest(self):
        with self._changed:
            self._most = 0
            back = [*self.sent, *(inner for _, inner in self.late)]
            self._count(back)
            self.sent.clear()
            self.late.clear()
            self._inner.settle([(d.lease, Release(0.0, d.state)) for d in reversed(back)])

    # ------------------------------------------------------------------ receiving

    def wait(self, timeout):
        with self._changed:
            due = min((at for at, _ in self.late), default=float("inf")) - time.monotonic()
        if self._pulls:
            self._inner.wait(max(0.0, min(timeout, due)))
            return
        with self._changed:
            if not self._most:
                self._begin(1)
            self._changed.wait_for(lambda: self.sent or self._woken, min(timeout, due))
            self._woken = False

    def wake(self):
        if self._pulls:
            self._inner.wake()
            return
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def fetch(self, limit, max_bytes):
        with self._changed:
            now = time.monotonic()
            if due := sorted((at, n) for n, (at, _) in enumerate(self.late) if at <= now)[:limit]:
                found = [self.late[n][1] for _, n in due]
                self.late = [each for each in self.late if each[1] not in found]
            elif self._pulls:
                found = self._inner.fetch(limit, max_bytes)
            else:
                rested = not self._most
                self._begin(len(self.held) + limit + MORE)
                if not self.sent and not rested:  # else what it brings is still on its way
                    self._send()
                found = []
                while self.sent and len(found) < limit and (max_bytes > 0 or not found):
                    found.append(self.sent.popleft())
                    max_bytes -= len(found[-1].body)
            if not self._broker.has(Capability.ORDERED):
                found = list(found)[::-1]
                found.sort(key=lambda delivery: -delivery.priority)
            for delivery in found:
                self.held[delivery.lease] = delivery
            return [self._told(delivery) for delivery in found]

    def _told(self, inner):
        headers, kept = _decoded(inner.headers)
        id = kept.get("id", inner.id)
        lost = inner.deliveries + kept.get("lost", 0) + self._broker.released[id]
        state = kept.get("state", inner.state)
        return replace(inner, id=id, deliveries=lost, state=state, headers=headers)

    # ------------------------------------------------------------------ settling

    def settle(self, batch):
        lost = []
        with self._changed:
            for lease, verdict in batch:
                inner = self.held.get(lease)
                if inner is None or not self._end(inner, verdict):
                    lost.append(lease)
                    if self._broker.has(Capability.LEASE):
                        self.held.pop(lease, None)
                    continue
                del self.held[lease]
            self._changed.notify_all()
        return lost

    def _end(self, inner, verdict):
        """Settle one; say whether it was ours."""
        if (
            type(verdict) is Release
            and verdict.delay > 0
            and not self._broker.has(Capability.DELAY)
        ):
            if not self._inner.extend([inner.lease]):
                return False
            kept = replace(inner, state=verdict.state)
            self.late.append((time.monotonic() + verdict.delay, kept))
            return True
        plain = type(verdict) is Release and not verdict.delay and verdict.state is None
        keeps = plain and "state" not in _decoded(inner.headers)[1] and inner.state is None
        if verdict is ACK or keeps or self._broker.has(Capability.ATOMIC):
            if self._inner.settle([(inner.lease, verdict)]):
                return False
            if type(verdict) is Release:
                self._count([inner])
            return True
        if not self._inner.extend([inner.lease]):
            return False
        told, queue = self._told(inner), self._queue
        if type(verdict) is DeadLetter:
            letter = Letter(queue, told.id, told.body, *verdict, told.headers, told.priority)
            self._broker.inner.bury([letter])
        else:
            kept = {"id": told.id, "lost": told.deliveries - self._broker.released[told.id]}
            headers = _coded(told.headers, {**kept, "state": verdict.state})
            copy = Outgoing(queue, told.id, told.body, headers, verdict.delay, 0.0, told.priority)
            self._broker.inner.publish([copy])
        self._broker.between()
        return not self._inner.settle([(inner.lease, ACK)])

    def _count(self, given_back):
        if not self._broker.has(Capability.COUNTED):
            for inner in given_back:
                self._broker.released[_decoded(inner.headers)[1].get("id", inner.id)] += 3

    def extend(self, leases):
        with self._changed:
            ours = [lease for lease in leases if lease in self.held]
            return self._inner.extend(ours)

    # ------------------------------------------------------------------ ends

    def cut(self):
        """Lose the connection, and with it the leases."""
        with self._changed:
            ends = [*self.held, *(d.lease for d in (*self.sent, *(late for _, late in self.late)))]
            self.held.clear()
            self.late.clear()
            self.sent.clear()
            queue = self._broker.inner._queue(self._queue)
            with queue.changed:
                for token, _ in ends:
                    if token in queue.batches:
                        queue.batches[token].end = 0.0
                queue.changed.notify_all()

    def close(self):
        with self._changed:
            self.rest()
            if not self._timed:
                self.cut()
            self._closed = True
            self._changed.notify_all()
        self._inner.wake()
        if self._sender:
            self._sender.join()
        self._inner.close()
        if self in (subs := self._broker.subscriptions.get(self._queue, [])):
            subs.remove(self)


def _coded(headers, kept):
    """Return headers that carry what a copy has to keep."""
    return {**(headers or {}), "thin": json.dumps([headers, kept])}


def _decoded(headers):
    """Return the headers as they were published, and what a copy has kept."""
    if not headers or "thin" not in headers:
        return headers, {}
    return json.loads(headers["thin"])
