"""What pika reads and writes by the thousand, by a shorter way: deliveries, confirms, publishes.

Left alone, pika makes an object of each frame, looks among its callbacks for each, reads 4 kB at
once, and sends each frame by a call of its own. Here what comes is cut into frames before pika
sees it, and what goes leaves together. This hangs on two private methods of its connection, through
which all its bytes come and go; a version without them is left to its own ways.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .amqp_client import Publishing, Received, Unwritable
from .amqp_frames import (
    BODY,
    END,
    FRAME_OVERHEAD,
    HEADER,
    ID,
    METHOD,
    MODE,
    PRIORITY,
    TIME,
    bodies_of,
    header_of,
)

__all__ = ["Sink", "Wire"]
DELIVER, ACK, NACK = b"\0\x3c\0\x3c", b"\0\x3c\0\x50", b"\0\x3c\0\x78"  # methods of Basic
TOGETHER = 1 << 16  # bytes that leave by one call
LARGEST = 1 << 16  # bytes of one read
HOOKS = ("_on_data_available", "_adapter_emit_data")


class Wire:
    """Stands between a connection of pika's and its socket. One thread."""

    def __init__(self, pika: Any, client: Any) -> None:
        self.pika, self._client = pika, client
        self.sinks: dict[int, Sink] = {}
        self._came = b""
        self._out: list[bytes] = []
        self.waiting = 0  # bytes
        self._read: Any
        self._write: Any
        self._read, self._write = (getattr(client, name, None) for name in HOOKS)
        self.short = bool(self._read and self._write)
        if self.short:
            for name, ours in zip(HOOKS, (self._take, self.send)):
                setattr(client, name, ours)

    def opened(self) -> None:
        """Know that the connection is open: from now on much is read at once."""
        with suppress(Exception):  # of pika's own, where it has such a limit
            if self.short:
                self._client._transport._MAX_RECV_BYTES = LARGEST

    def send(self, data: bytes) -> None:
        """Let frames leave with the next turn of the loop."""
        self._out.append(data)
        self.waiting += len(data)
        if self.waiting >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Give to pika's socket what has to leave."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.waiting = 0
            if not self._client.is_closed:
                self._write(data)

    def publish(self, channel: int, item: Publishing, method: bytes) -> int:
        """Send a message, whose frame of the method is there; return about how long it is.

        Raises:
            Unwritable: nothing of it was sent.
        """
        try:
            head = method + self._header(channel, item)
        except Exception as error:  # the library's, of any kind
            raise Unwritable(str(error)) from error
        self.send(head)
        for part in bodies_of(channel, item.body, self._client.params.frame_max):
            self.send(part)
        return len(method) + len(item.body)

    def method(self, channel: int, exchange: str, routing_key: str) -> bytes:
        """Return the frame of a method that publishes.

        Raises:
            Unwritable: there is none.
        """
        publish = self.pika.spec.Basic.Publish
        try:
            told = publish(exchange=exchange, routing_key=routing_key, mandatory=True)
            return self.pika.frame.Method(channel, told).marshal()  # type: ignore[no-any-return]
        except Exception as error:
            raise Unwritable(str(error)) from error

    def _header(self, channel: int, item: Publishing) -> bytes:
        if (header := header_of(channel, item)) is not None:
            return header
        told = self.pika.BasicProperties(**item.properties)
        return self.pika.frame.Header(channel, len(item.body), told).marshal()  # type: ignore[no-any-return]

    def _take(self, data: bytes) -> None:
        """Cut what has come into frames; what no channel takes is pika's."""
        data = self._came + data if self._came else data
        if data.startswith(b"AMQP"):  # a server of another version: this is no frame
            return self._read(data)  # type: ignore[no-any-return]
        start, size, taken, sinks = 0, len(data), 0, self.sinks
        while size - start >= FRAME_OVERHEAD:
            end = start + FRAME_OVERHEAD + int.from_bytes(data[start + 3 : start + 7], "big")
            if end > size:
                break
            sink = sinks.get(data[start + 1] << 8 | data[start + 2])
            if sink is not None and data[end - 1] == END and sink.takes(data, start, end):
                taken += end - start
            else:
                self._read(data[start:end])
            start = end
        self._came = data[start:]
        self._client.bytes_received += taken  # by which it sees that the server lives
        return None


class Sink:
    """Takes what is delivered to the consumers of a channel, and confirms. One thread."""

    def __init__(self, pika: Any) -> None:
        self._pika = pika
        self.consumers: dict[bytes, Callable[[Received], object]] = {}
        self.confirms: Callable[[int, bool, bool], object] | None = None
        # Of the message that is coming:
        self._consumer: Callable[[Received], object] | None = None
        self._tag, self._redelivered = 0, False
        self._header, self._parts, self._left = b"", list[bytes](), 0

    def takes(self, data: bytes, start: int, end: int) -> bool:
        """Take a whole frame, or say that it is pika's."""
        kind, consumer = data[start], self._consumer
        if kind == METHOD:
            return self._method(data, start + 7)
        if consumer is None:
            return False
        if kind == HEADER:
            self._header, self._parts = data[start + 19 : end - 1], []
            self._left = int.from_bytes(data[start + 11 : start + 19], "big")
        elif kind == BODY:
            self._parts.append(data[start + 7 : end - 1])
            self._left -= end - start - FRAME_OVERHEAD
        else:
            return False
        if self._left <= 0:
            self._consumer = None
            parts = self._parts
            self._hand_over(consumer, parts[0] if len(parts) == 1 else b"".join(parts))
        return True

    def _method(self, data: bytes, start: int) -> bool:
        """Take a method, unless it is another one.

        Of a delivery the consumer, the tag, and whether there was one before are read: a routing
        key of another program's has any bytes.
        """
        method, at = data[start : start + 4], start + 4
        if method == DELIVER:
            end = at + 1 + data[at]
            self._consumer = self.consumers.get(data[at + 1 : end])
            self._tag = int.from_bytes(data[end : end + 8], "big")
            self._redelivered = bool(data[end + 8] & 1)
            return self._consumer is not None
        if method not in (ACK, NACK) or self.confirms is None:
            return False
        tag, multiple = int.from_bytes(data[at : at + 8], "big"), bool(data[at + 8] & 1)
        self.confirms(tag, multiple, method == NACK)
        return True

    def _hand_over(self, consumer: Callable[[Received], object], body: bytes) -> None:
        header = self._header
        flags = header[0] << 8 | header[1]
        if flags & ~(MODE | PRIORITY | ID | TIME):
            told = self.properties(header)
            id = told.message_id if type(told.message_id) is str else None  # bytes: of no UTF-8
            read = told.headers, id, told.priority, told.timestamp
        else:
            read = None, *_ours(header, flags)
        consumer(Received(self._tag, self._redelivered, body, *read, header))

    def properties(self, header: bytes) -> Any:
        """Return all properties of a message; none where they cannot be read."""
        try:
            return self._pika.BasicProperties().decode(header)
        except Exception:  # of another program; its body may be read all the same
            return self._pika.BasicProperties()


def _ours(header: bytes, flags: int) -> tuple[str | None, int | None, int | None]:
    """Return id, priority and time of properties such as we write."""
    place, id, priority, at = 2 + bool(flags & MODE), None, None, None
    if flags & PRIORITY:
        priority, place = header[place], place + 1
    if flags & ID:
        end = place + 1 + header[place]
        with suppress(UnicodeDecodeError):  # of another program
            id = header[place + 1 : end].decode()
        place = end
    if flags & TIME:
        at = int.from_bytes(header[place : place + 8], "big")
    return id, priority, at
