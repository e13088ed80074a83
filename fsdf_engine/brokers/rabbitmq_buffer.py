"""What a server has sent and `fetch` has not handed out, and what becomes of it there.

The owner's thread puts messages in, the consumer's takes them out. A delayed one may come up to
`HOLD` early, for its walk ends a little before its time: it waits here. The clocks of machines
differ, so none waits longer.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..contracts import Delivery, LeaseId
from ..green import Event, native_lock
from ..message import new_id
from .amqp_client import Received
from .rabbitmq_leases import Lease, Tags
from .rabbitmq_message import delivery, due_of, lost_of, more_of, number
from .rabbitmq_server import Server, Shape

__all__ = ["Buffer"]
HOLD = 1.8  # seconds
SOON = 0.001  # seconds before its time at which a message is due
# Seconds between two looks at what was early: where many are due one after the other, each one by
# itself would cost its fetch, and its acknowledgement the server's answer.
PACE = 0.01
MEMORY = 10_000  # messages of which is known how often we gave them back


class Source(NamedTuple):
    """What a channel's messages are read by."""

    token: int
    shape: Shape
    server: Server
    properties_of: Callable[[Received], dict[str, Any]]


class Buffer:
    """See above. `arrived` counts what has come, and rings the bell."""

    def __init__(self, queue: str, bell: Event) -> None:
        self._queue, self._bell, self._lock = queue, bell, native_lock()
        self._due: deque[Received] = deque()
        self._early: list[tuple[float, int, Received]] = []
        self._order = itertools.count()
        self._paced = 0.0  # when the next of those that are early may count as due
        self._prior = False  # something of a priority has come since it was last in order
        self._given: OrderedDict[str, int] = OrderedDict()
        self._source = Source(0, Shape(), Server(), lambda message: {})
        self.arrived = 0

    def begin(
        self,
        token: int,
        shape: Shape,
        server: Server,
        tags: Tags,
        properties_of: Callable[[Received], dict[str, Any]],
    ) -> None:
        """Take from another channel from now on. The owner's thread."""
        with self._lock:
            self._due.clear()
            self._early.clear()
            self._source = Source(token, shape, server, properties_of)
        self._tags = tags

    def clear(self) -> None:
        """Forget what is in it: its channel has ended. The owner's thread."""
        with self._lock:
            self._due.clear()
            self._early.clear()

    def put(self, message: Received) -> None:
        """Take what has come. The owner's thread."""
        self._tags.came(message.tag)
        due = due_of(message.headers)
        now = time.time() if due else 0.0
        with self._lock:
            self.arrived += 1
            if due - now > SOON:
                heapq.heappush(self._early, (min(due, now + HOLD), next(self._order), message))
            else:
                self._due.append(message)
            self._prior = self._prior or bool(message.priority)
        if not self._bell.is_set():
            self._bell.set()

    def __bool__(self) -> bool:
        """Say whether something can be taken."""
        return bool(self._due) or (bool(self._early) and self.next_due() <= 0)

    @property
    def early(self) -> int:
        """How many are there before their time."""
        return len(self._early)

    def sizes(self) -> tuple[int, int]:
        """Return how many are there, due and before their time."""
        return len(self._due), len(self._early)

    def next_due(self) -> float:
        """Return in how many seconds the next one is due."""
        with self._lock:
            if not self._early:
                return 3600.0
            return max(self._early[0][0] - SOON, self._paced) - time.time()

    def take(
        self, limit: int, max_bytes: int
    ) -> tuple[list[tuple[Delivery, Lease]], list[tuple[LeaseId, Lease]]]:
        """Hand out; and name what must be sent anew instead."""
        taken: list[tuple[Delivery, Lease]] = []
        anew: list[tuple[LeaseId, Lease]] = []
        source, messages = self._pop(limit, max_bytes)
        for message in messages:
            told, found, again = self.leased(message, source)
            if again:
                anew.append((told.lease, found))
            else:
                taken.append((told, found))
        return taken, anew

    def leased(
        self, message: Received, source: Source | None = None
    ) -> tuple[Delivery, Lease, bool]:
        """Return what a message is to the engine, and to us, and whether it must be sent anew."""
        source = source or self._source
        lost, again = self._lost(message, source)
        id = message.message_id or new_id()
        told = delivery((source.token, message.tag), message, id, lost, source.shape)
        found = Lease(message, id, lost, told.state, source.shape, source.properties_of)
        return told, found, again or more_of(message.headers) > 0

    def _pop(self, limit: int, max_bytes: int) -> tuple[Source, list[Received]]:
        """Take what is due; and whose it is, for another channel may follow at any time."""
        found: list[Received] = []
        with self._lock:
            now = time.time() + SOON if self._early else 0.0
            while self._early and self._early[0][0] <= now:
                self._due.append(heapq.heappop(self._early)[2])
                self._paced = now + PACE
            due = self._due
            if self._prior and len(due) > 1:  # among them, too, the highest is first
                ordered = sorted(due, key=lambda message: -(message.priority or 0))
                due.clear()
                due.extend(ordered)
            self._prior = False
            while due and len(found) < limit and (max_bytes > 0 or not found):
                found.append(due.popleft())
                max_bytes -= len(found[-1].body)
            return self._source, found

    def _lost(self, message: Received, source: Source) -> tuple[int, bool]:
        """Return how many leases of it were lost, and whether a copy has to remember that.

        Where the server counts what was given back, too, ours is known and left out.
        """
        lost = lost_of(message.headers, self._queue)
        mine = self._given.get(message.message_id or "", 0)
        if source.shape.kind == "quorum":
            count = number(message.headers or {}, "x-delivery-count")
            return lost + (count if source.server.prior_quorum else max(0, count - mine)), False
        if message.redelivered and not mine:
            return lost + 1, source.shape.kind == "classic"
        return lost, False

    def take_all(self) -> list[Received]:
        """Take everything, in the order of its tags. The owner's thread."""
        with self._lock:
            found = [*self._due, *(message for _, _, message in self._early)]
            self._due.clear()
            self._early.clear()
        return sorted(found, key=lambda message: message.tag)

    def gave_back(self, messages: Iterable[Received] | Sequence[Received]) -> None:
        """Remember what we give back: that it comes again is no lost lease. The owner's thread."""
        given = self._given
        for message in messages:
            if id := message.message_id:
                given[id] = given.pop(id, 0) + 1
        while len(given) > MEMORY:
            given.popitem(last=False)
