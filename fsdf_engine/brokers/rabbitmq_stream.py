"""A channel that consumes one queue, and what the server is told there of what it has brought."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from .amqp_client import AmqpChannel, AmqpConnection
from .rabbitmq_buffer import Buffer
from .rabbitmq_leases import Tags
from .rabbitmq_server import Shape, server_of

__all__ = ["Stream"]
ORDERED = 30  # a quorum queue keeps the order of so many that go back at once
TRUE = 1.0  # seconds until a count must show what was given back


class Stream:
    """Of its owner's thread. Ends with its channel; another one has another token."""

    def __init__(
        self, connection: AmqpConnection, queue: str, token: int, shape: Shape, buffer: Buffer
    ) -> None:
        self.connection, self.queue, self.token, self.shape = connection, queue, token, shape
        self.channel: AmqpChannel = connection.channel()
        self.tags, self.consumer, self.prefetch = Tags(), "", 0
        self._ended: list[int] = []  # of consumers that were cancelled: their last tags
        self._buffer = buffer
        server = server_of(connection.server)
        buffer.begin(token, shape, server, self.tags, self.channel.properties_of)

    def consume(self, prefetch: int) -> None:
        """Consume, from now on with another prefetch."""
        self.cancel()
        self.prefetch = prefetch
        self.consumer = self.channel.consume(self.queue, prefetch, self._buffer.put)

    def cancel(self) -> None:
        """End the consumer, if there is one.

        What a quorum queue's server has still to hand to a consumer that is cancelled goes back in
        no order: that has to come before. Its answer to a question is behind it.
        """
        if self.consumer:
            if self.shape.kind == "quorum":
                self._count()
            self.channel.cancel(self.consumer)
            self._ended.append(self.tags.last)
            self.consumer = ""

    def _consumers(self) -> int:
        """Return how many of ours the server may count: also such as only hold something."""
        first = self.tags.first()
        self._ended = [last for last in self._ended if last >= first]
        return len(self._ended) + bool(self.consumer)

    def prove(self) -> None:
        """Ask whether the channel lives; what was sent before has arrived then."""
        self.channel.count(self.queue)

    def ack(self, tags: Collection[int]) -> None:
        """Acknowledge; the server may not have heard of it yet."""
        last, others = self.tags.acked(tags)
        if last:
            self.channel.ack(last, multiple=True)
        for tag in others:
            self.channel.ack(tag)

    def give_back(self, tags: Sequence[int]) -> None:
        """Give back in the order of the tags; the queue then has it, and its count shows it.

        A quorum queue keeps the order of `ORDERED` at once. That these have arrived is told by its
        count, which is exact only while nothing is on its way to us.
        """
        ordered = sorted(tags)
        step = ORDERED if self.shape.kind == "quorum" else max(1, len(ordered))
        prefetch = self.prefetch if self.consumer and len(ordered) > step else 0
        if prefetch:
            self.cancel()
        for start in range(0, len(ordered), step):
            part = ordered[start : start + step]
            before, _ = self._present()
            for tag in part:
                self.channel.nack(tag)
            self.tags.returned(part)
            self._see(before + len(part))
        if prefetch:
            self.consume(prefetch)

    def _count(self) -> tuple[int, int]:
        """Count what is in the queue, and its consumers.

        A server that waits for a quorum queue for longer than 0.25 s answers that it has nothing
        and nobody; not so while we consume it: it is asked again.
        """
        end = time.monotonic() + TRUE
        while True:
            found = self.channel.count(self.queue)
            asked = self.shape.kind == "quorum" and self.consumer
            if found[1] or not asked or time.monotonic() > end:
                return found

    def _present(self) -> tuple[int, int]:
        """Count what is in the queue or has ever come to our consumer; and its consumers."""
        ready, consumers = self._count()
        return ready + (self._buffer.arrived if self.consumer else 0), consumers

    def _see(self, expected: int) -> None:
        """Wait until what was given back is in the queue, or has come again."""
        end = time.monotonic() + TRUE
        while True:
            present, consumers = self._present()
            others = consumers > self._consumers()  # which take of it: nothing can be told
            if others or self.shape.kind != "quorum" or time.monotonic() > end:
                return
            if present >= expected:
                return
