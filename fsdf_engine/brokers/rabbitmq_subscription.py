"""Receiving from a queue of RabbitMQ: one channel, on a connection that its owner's thread has.

What the server sends lies in a buffer until `fetch` hands it out. A lease is a delivery tag of this
channel: it ends with the channel, and with it all that a stale owner could do. What ends otherwise
than by an acknowledgement, or by going back as it came, is first copied: the channel is asked
whether it lives, the copy is published and confirmed, then the message is acknowledged.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

from ..contracts import Delivery, LeaseId, Settlement, Subscription
from ..errors import BrokerError, Unavailable
from ..green import Event
from ..outcomes import Ack, DeadLetter, Release
from .amqp_client import AmqpConnection, ChannelClosed, Confirmed, Publishing
from .amqp_owner import Owner
from .rabbitmq_buffer import HOLD, Buffer
from .rabbitmq_held import Held
from .rabbitmq_leases import Lease
from .rabbitmq_message import changed, delayed, died, due_of, more_of
from .rabbitmq_publisher import check_stored
from .rabbitmq_stream import Stream
from .rabbitmq_topology import Topology

__all__ = ["RabbitSubscription"]
log = logging.getLogger("fsdf.rabbitmq")
MOST = 10_000  # prefetched
TENDED = 5.0  # seconds after which the owner looks whether runs are long
MOVED = 500  # long runs moved at once
RETRY = 5.0  # seconds after which moving them is tried again
MADE = 1.0  # seconds that another one's making of a queue may take


class RabbitSubscription(Subscription):
    """See `Subscription`. `publish` is the broker's, for copies and dead letters."""

    def __init__(
        self,
        queue: str,
        connect: Callable[[], AmqpConnection],
        topology: Topology,
        publish: Callable[[str, Sequence[Publishing]], Confirmed],
    ) -> None:
        self.queue, self._topology, self._publish = queue, topology, publish
        self._owner = Owner(
            connect, f"fsdf-{queue}", lost=self._lost, patience=self._patience, tend=self._tend
        )
        self._arrived, self._woken = Event(), False
        self.buffer = Buffer(queue, self._arrived)
        self._stream: Stream | None = None
        self._held: Held | None = None
        self._tokens = itertools.count(1)
        self._handed: dict[LeaseId, Lease] = {}
        self._copied: set[LeaseId] = set()  # of which there is a copy already
        self._asked = 1  # the last limit
        self._look = 0.0  # when to look for long runs

    # The thread of the owner

    def _lost(self) -> None:
        self._stream = self._held = None
        self._handed.clear()
        self._copied.clear()
        self.buffer.clear()
        self._arrived.set()

    def _live(self) -> Stream:
        """Return the stream; open one if there is none."""
        if (stream := self._stream) is None or not stream.channel.is_open:
            connection = self._owner.connection()
            self._end_stream()
            self._topology.forget(self.queue)
            shape = self._topology.shape(connection, self.queue)
            stream = Stream(connection, self.queue, next(self._tokens), shape, self.buffer)
            self._stream = stream
        return stream

    def _end_stream(self) -> None:
        stream, held = self._stream, self._held
        self._lost()
        for one in (held, stream):
            if one is not None:
                one.channel.close()

    def _try(self, fn: Callable[[], object]) -> None:
        """Do something on our channels; one that has ended is an outage that ends our leases."""
        try:
            fn()
        except ChannelClosed as error:
            log.warning("the channel of queue %s has ended: %s", self.queue, error)
            self._end_stream()
            raise Unavailable(
                f"RabbitMQ has ended the channel of {self.queue!r}: {error}"
            ) from error

    def _feed(self, limit: int) -> None:
        """See that messages are sent, and let come what is on its way."""
        stream = self._live()
        taken = self._taken()
        target = min(taken + limit, MOST)
        full = taken >= stream.prefetch and self.buffer.early < MOST  # perhaps no more is sent
        fits = stream.prefetch // 2 <= target < stream.prefetch * 2 and not self._narrow(limit)
        if not stream.consumer or full or not fits:
            stream = self._consume(target + target // 4)
        stream.prove()

    def _consume(self, prefetch: int) -> Stream:
        """Consume; anew if that breaks the connection.

        So it does (RabbitMQ 3.10: INTERNAL_ERROR) while another client is just making the queue: a
        quorum queue is seen before its leader is there.
        """
        end = time.monotonic() + MADE
        while True:
            stream = self._live()
            try:
                stream.consume(prefetch)
            except Unavailable as error:
                if stream.shape.kind != "quorum" or time.monotonic() >= end:
                    raise
                log.debug("queue %s is perhaps being made: %s", self.queue, error)
            else:
                return stream

    def _taken(self) -> int:
        """Count what was sent to us and cannot be handed out."""
        return len(self._handed) + self.buffer.early

    def _narrow(self, limit: int) -> bool:
        """Say whether so many that are due may have no room beside what is held back."""
        if (stream := self._stream) is None or not stream.consumer:
            return False
        few = 0 < self.buffer.early < MOST
        return few and min(self._taken() + limit, MOST) > stream.prefetch

    def _rest(self) -> None:
        stream = self._stream
        if stream is None or not stream.consumer:
            return
        stream.cancel()
        back = self.buffer.take_all()
        if stream.shape.returns:
            stream.give_back([message.tag for message in back])
            self.buffer.gave_back(back)
            return
        found = [self.buffer.leased(message)[1] for message in back]
        self._store([self._same(lease) for lease in found])
        stream.ack([message.tag for message in back])
        stream.prove()

    def _patience(self) -> float | None:
        return TENDED if self._stream is not None else None

    def _tend(self) -> None:
        if (stream := self._stream) is None:
            return None
        if not stream.channel.is_open or (self._held and not self._held.channel.is_open):
            log.warning("a channel of queue %s has ended", self.queue)
            return self._end_stream()
        if (now := time.monotonic()) < self._look or not stream.shape.ours:
            return None
        self._look, before = now + 1.0, now - Held.AFTER
        for key in [key for key in list(self._handed) if key[0] != stream.token]:
            self._handed.pop(key, None)  # handed out while its stream ended
        old = self._handed_before(before)
        try:
            if old:
                self._try(partial(self._move, stream, old[:MOVED]))
        except BrokerError as error:
            log.warning("queue %s: long runs stay where they are: %s", self.queue, error)
            self._look = now + RETRY
        return None

    def _handed_before(self, at: float) -> list[tuple[LeaseId, Lease]]:
        """Return what was handed out by then; the consumer hands out more meanwhile."""
        return [(key, lease) for key, lease in self._handed.copy().items() if lease.at <= at]

    def _move(self, stream: Stream, old: Sequence[tuple[LeaseId, Lease]]) -> None:
        """Hold elsewhere what runs for long, and acknowledge it here."""
        if self._held is None:
            self._held = Held(stream.connection, self.queue)
        self._prove()
        here = [key[1] for key, lease in old if not lease.held]
        if before := self._held.move(old, self._store):
            self._held.ack(before)
        stream.ack(here)
        stream.prove()

    # The thread of the consumer

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        self._asked = limit
        if not self.buffer or self._lags(limit):
            self._owner(partial(self._try, partial(self._feed, limit)))
        return self._hand_out(limit, max_bytes)

    def _lags(self, limit: int) -> bool:
        """Say whether too few are sent for what is wanted by now: the buffer may never be empty."""
        stream = self._stream
        if stream is None or not stream.consumer or self.buffer.sizes()[0] >= limit:
            return False
        return self._narrow(limit) or 2 * stream.prefetch <= min(self._taken() + limit, MOST)

    def _hand_out(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        taken, anew = self.buffer.take(limit, max_bytes)
        self._handed.update((delivery.lease, lease) for delivery, lease in taken)
        if anew:
            self._send_anew(anew)
        return [delivery for delivery, _ in taken]

    @property
    def emptied(self) -> bool:  # type: ignore[override]
        return not self.buffer

    def wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not self._woken and not self.buffer:
            if (stream := self._stream) is None or not stream.consumer:
                self._owner(partial(self._try, partial(self._feed, self._asked)))
                continue
            self._arrived.clear()
            if self._woken or self.buffer or self._stream is None:
                continue
            if self._narrow(self._asked):
                self._owner(partial(self._try, partial(self._feed, self._asked)))
                continue
            left = min(end - time.monotonic(), self.buffer.next_due())
            if left > 0:
                self._arrived.wait(left)
            if time.monotonic() >= end:
                break
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        self._arrived.set()

    def rest(self) -> None:
        self._owner(partial(self._try, self._rest))

    # Any thread

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        acks: list[LeaseId] = []
        back: list[LeaseId] = []
        copies: list[tuple[LeaseId, Lease, Release | DeadLetter]] = []
        lost: list[LeaseId] = []
        for lease, verdict in batch:
            if (found := self._handed.get(lease)) is None:
                lost.append(lease)
            elif isinstance(verdict, Ack):
                acks.append(lease)
            elif isinstance(verdict, Release) and self._goes_back(found, verdict):
                back.append(lease)
            else:
                copies.append((lease, found, verdict))
        if copies:
            acks += self._copy(copies, lost)
        self._owner(partial(self._try, partial(self._end, acks, back, lost)))
        return lost

    @staticmethod
    def _goes_back(lease: Lease, verdict: Release) -> bool:
        """Say whether it can go back as it came."""
        same = (verdict.state or None) == (lease.state or None)
        return same and verdict.delay <= 0 and lease.shape.returns and not lease.held

    def _copy(
        self, copies: Sequence[tuple[LeaseId, Lease, Release | DeadLetter]], lost: list[LeaseId]
    ) -> list[LeaseId]:
        """Store copies of what is still ours; return which that is."""
        kept = set(self.extend([lease for lease, _, _ in copies]))
        lost += [lease for lease, _, _ in copies if lease not in kept]
        ours = [copy for copy in copies if copy[0] in kept]
        made = [copy for copy in ours if copy[0] not in self._copied]
        self._store(
            [self._copied_as(found, verdict) for _, found, verdict in made],
            [lease for lease, _, _ in made],
        )
        return [lease for lease, _, _ in ours]

    def _copied_as(self, lease: Lease, verdict: Release | DeadLetter) -> Publishing:
        message, body = lease.properties(), lease.message.body
        if isinstance(verdict, DeadLetter):
            return died(self.queue, body, changed(message, lease.id, None, 0), verdict)
        told = changed(message, lease.id, verdict.state, lease.lost)
        return delayed(self.queue, body, told, verdict.delay, time.time())

    def _store(self, copies: Sequence[Publishing], leases: Sequence[LeaseId] = ()) -> None:
        """Publish copies, all of them; know of which of these leases there is one by now.

        Raises:
            PublishError, Unavailable: see `check_stored`.
        """
        if not copies:
            return
        told = self._publish(self.queue, copies)
        missing = told.missing
        self._copied.update(lease for n, lease in enumerate(leases) if n not in missing)
        if missing:
            self._topology.forget(self.queue)
        check_stored(told, copies, f"copies of messages of {self.queue!r}")

    def _same(self, lease: Lease) -> Publishing:
        """Return a copy that is as the message was, what is left of its delay included."""
        headers, now = lease.message.headers, time.time()
        left = more_of(headers) or min(due_of(headers) - now, HOLD)
        told = changed(lease.properties(), lease.id, lease.state, lease.lost)
        return delayed(self.queue, lease.message.body, told, left, now)

    def _send_anew(self, anew: Sequence[tuple[LeaseId, Lease]]) -> None:
        """Publish again, and acknowledge, what must not start as it is."""
        self._handed.update(anew)
        leases = [lease for lease, _ in anew]
        try:
            self._store([self._same(found) for _, found in anew])
            self._owner(partial(self._try, partial(self._end, leases, (), [])))
        except BrokerError as error:
            log.warning("queue %s: messages cannot be sent anew: %s", self.queue, error)
            self._owner(partial(self._try, partial(self._end, (), leases, [])))

    def _end(self, acks: Sequence[LeaseId], back: Sequence[LeaseId], lost: list[LeaseId]) -> None:
        """Acknowledge and give back, and see that the server has heard of it."""
        if (stream := self._stream) is None:
            lost += [*acks, *back]
            return None
        acked, returned = self._ours(stream, acks, lost), self._ours(stream, back, lost)
        moved = [found for found in returned.values() if found.held]  # meanwhile
        self._store([self._same(found) for found in moved])
        for lease in (*acked, *returned):
            self._handed.pop(lease, None)
        self._copied.difference_update(acked)
        stream.ack([lease[1] for lease, found in acked.items() if not found.held])
        if held := [found.held for found in (*acked.values(), *moved) if found.held]:
            assert self._held is not None
            self._held.ack(held)
        messages = [found.message for found in returned.values() if not found.held]
        self.buffer.gave_back(messages)
        if messages:
            return stream.give_back([message.tag for message in messages])
        return stream.prove() if acked and not held else None

    def _ours(
        self, stream: Stream, leases: Sequence[LeaseId], lost: list[LeaseId]
    ) -> dict[LeaseId, Lease]:
        """Return those that are of this stream, and name the others as lost."""
        known = {
            lease: found
            for lease in leases
            if lease[0] == stream.token and (found := self._handed.get(lease))
        }
        lost += [lease for lease in leases if lease not in known]
        return known

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        try:
            self._owner(partial(self._try, self._prove))
        except Unavailable as error:
            log.warning("the leases of queue %s have ended: %s", self.queue, error)
        stream, lost = self._stream, list[LeaseId]()
        return self._ours(stream, leases, lost) if stream is not None else ()

    def _prove(self) -> None:
        """Ask the server whether our channels live."""
        if (stream := self._stream) is not None:
            stream.prove()
            if self._held is not None:
                self._held.prove()

    def let_come(self) -> int:
        """Let come what is on its way, and return how many have come at all. Any thread; blocks."""
        with suppress(Unavailable):
            self._owner(partial(self._try, self._prove))
        return self.buffer.arrived

    def close(self) -> None:
        self._owner.close()
