"""A channel by amqpstorm, whose waits are turns of the connection's loop."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..errors import FsdfError, MissingExtra, Unanswered, Unavailable
from ..unpatched import unpatched
from .amqp_client import AmqpChannel, ChannelClosed, Confirmed, Publishing, Received, Unwritable
from .amqp_confirms import Confirms
from .amqp_frames import OFTEN, bodies_of, header_of

if TYPE_CHECKING:
    from .rabbitmq_amqpstorm import StormConnection

__all__ = ["Library", "StormChannel"]
LONGEST = 128  # bytes of a name in a table; the library cuts what is longer, and raises nothing


class Library:
    """The modules of the client, and of what it writes and reads frames by."""

    def __init__(self) -> None:
        try:
            self.client = unpatched("amqpstorm", "pamqp")
            self.channel = unpatched("amqpstorm.channel", "pamqp").Channel
            self.commands = unpatched("pamqp.commands")
            self.header, frame = unpatched("pamqp.header"), unpatched("pamqp.frame")
            self.marshal, self.unmarshal = frame.marshal, frame.unmarshal
        except ImportError as error:
            raise MissingExtra(
                'RabbitMQ by amqpstorm needs its client; run: pip install "fsdf[rabbitmq]"'
            ) from error
        self.properties = self.commands.Basic.Properties
        # What it tells as errors is told by us.
        logging.getLogger(self.client.__name__).setLevel(logging.CRITICAL)


class StormChannel(AmqpChannel):
    """See `AmqpChannel`. `method`, `header` and `body` take what comes for it."""

    def __init__(self, connection: StormConnection, client: Any) -> None:
        self._connection, self._client = connection, client
        self._library = connection.library
        self._reason: ChannelClosed | None = None
        self._confirms: Confirms | None = None
        self._takes: dict[str, Callable[[Received], object]] = {}
        self._tags = itertools.count(1)
        # Of the message that is coming:
        self._delivered = ("", 0, False)
        self._returned: Any = None
        self._properties: Any = None
        self._parts, self._left = list[bytes](), 0
        client.rpc._wait_for_request = self._await_answer

    def open(self) -> None:
        """Open it."""
        self._ask(self._client.open)

    @property
    def is_open(self) -> bool:
        return self._reason is None and self._connection.is_open and bool(self._client.is_open)

    def closed(self) -> Exception:
        """Return the error that says how the channel has ended."""
        if not self._connection.is_open:
            return self._connection.lost()
        return self._reason or ChannelClosed(504, "the channel was closed")

    def _await_answer(self, uuid: str, adapter: Any = None) -> None:
        answers = self._client.rpc._response
        timeout = self._connection.endpoint.timeout
        self._connection.until(lambda: answers[uuid] or self._reason, timeout)
        if not answers[uuid]:
            raise self.closed()

    def _ask(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return fn(*args, **options)
        except self._library.client.AMQPError as error:
            raise self.closed() from error

    # What comes

    def method(self, frame: Any) -> None:
        """Take a frame that is a method."""
        name = frame.name
        if name == "Basic.Return":
            self._returned = frame
        elif name in ("Basic.Ack", "Basic.Nack"):
            if self._confirms is not None:
                self._confirms.answered(frame.delivery_tag, frame.multiple, name == "Basic.Nack")
        elif name == "Basic.Cancel":
            self._reason = self._reason or ChannelClosed(404, "the queue was deleted")
        else:
            if name == "Channel.Close":
                self._reason = ChannelClosed(frame.reply_code, str(frame.reply_text))
            self._client.on_frame(frame)

    def deliver(self, data: bytes) -> None:
        """Take the beginning of a message: its consumer, its tag, whether it was delivered before.

        What follows may not be readable: a routing key of another program's has any bytes.
        """
        end = 12 + data[11]
        tag = int.from_bytes(data[end : end + 8], "big")
        self._delivered = (data[12:end].decode(), tag, bool(data[end + 8] & 1))
        self._returned = None

    def header(self, data: bytes) -> None:
        """Take the header of a message; what cannot be read is left out."""
        try:
            self._properties = self._library.unmarshal(data)[2].properties
        except Exception:  # of another program; its body may be read all the same
            self._properties = self._library.properties()
        self._parts, self._left = [], int.from_bytes(data[11:19], "big")
        if not self._left:
            self._complete()

    def body(self, part: bytes) -> None:
        """Take a part of a message."""
        self._parts.append(part)
        self._left -= len(part)
        if self._left <= 0:
            self._complete()

    def _complete(self) -> None:
        told, parts, returned = self._properties, self._parts, self._returned
        if returned is not None:
            if self._confirms is not None:
                self._confirms.returned(returned.routing_key, told.message_id)
            return
        consumer, tag, redelivered = self._delivered
        at = told.timestamp
        self._takes[consumer](
            Received(
                tag, redelivered,
                parts[0] if len(parts) == 1 else b"".join(parts), told.headers, told.message_id,
                told.priority, at.timestamp() if at else None, told,
            )
        )  # fmt: skip

    # What is asked

    def declare(self, queue: str, arguments: Mapping[str, Any], *, durable: bool = True) -> None:
        declare = self._client.queue.declare
        self._ask(declare, queue, durable=durable, arguments=dict(arguments))

    def count(self, queue: str) -> tuple[int, int]:
        told = self._ask(self._client.queue.declare, queue, passive=True)
        return told["message_count"], told["consumer_count"]

    def declare_exchange(self, exchange: str, kind: str) -> None:
        self._ask(self._client.exchange.declare, exchange, kind, durable=True)

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self._ask(self._client.queue.bind, queue, exchange, routing_key)

    def purge(self, queue: str) -> int:
        told = self._ask(self._client.queue.purge, queue)
        return told["message_count"]  # type: ignore[no-any-return]

    def consume(self, queue: str, prefetch: int, take: Callable[[Received], object]) -> str:
        tag = f"fsdf-{next(self._tags)}"
        self._takes[tag] = take  # before the answer: messages may come with it
        self._ask(self._client.basic.qos, prefetch_count=prefetch)
        self._ask(self._client.basic.consume, None, queue, tag)
        return tag

    def cancel(self, consumer: str) -> None:
        self._ask(self._client.basic.cancel, consumer)

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self._ask(self._client.basic.ack, tag, multiple)

    def nack(self, tag: int, *, requeue: bool = True) -> None:
        self._ask(self._client.basic.nack, tag, False, requeue)

    def properties_of(self, message: Received) -> dict[str, Any]:
        told = {name: value for name, value in message.source if value is not None}
        if "message_type" in told:
            told["type"] = told.pop("message_type")
        if told.get("headers"):
            told["headers"] = _writable(told["headers"])
        return told

    def publish(self, batch: Sequence[Publishing], patience: float) -> Confirmed:
        connection, confirms = self._connection, self._confirms
        if connection.blocked:
            text = f"the server takes no messages: {connection.blocked}"
            return Confirmed(unknown=range(len(batch)), error=Unavailable(text))
        if confirms is None:
            try:
                self._ask(self._client.rpc_request, self._library.commands.Confirm.Select())
            except (ChannelClosed, FsdfError) as error:
                return Confirmed(unknown=range(len(batch)), error=error)
            self._confirms = confirms = Confirms()
        left = iter(batch)
        try:
            self._publish(left, confirms)
            connection.until(
                lambda: confirms.over or not self.is_open or connection.blocked, patience
            )
        except (ChannelClosed, FsdfError) as error:
            return confirms.answer(error, left)
        if confirms.over:
            return confirms.answer(None)
        if not self.is_open:
            return confirms.answer(self.closed())
        text = f"the server takes no messages: {connection.blocked}"
        return confirms.answer(Unanswered(text))

    def _publish(self, batch: Iterable[Publishing], confirms: Confirms) -> None:
        """Send it; many messages leave by one call."""
        methods: dict[tuple[str, str], bytes] = {}
        frames: list[bytes] = []
        size = 0
        for item in batch:
            confirms.expect(item)
            try:
                frames += self._frames(item, methods)
            except Exception as error:  # the library's, of any kind
                confirms.withdraw(item, error)
            size += len(item.body)
            if size >= OFTEN:
                self._write(frames)
                frames, size = [], 0
        self._write(frames)

    def _write(self, frames: Sequence[bytes]) -> None:
        if not self.is_open:
            raise self.closed()
        self._connection.write(b"".join(frames))

    def _frames(self, item: Publishing, methods: dict[tuple[str, str], bytes]) -> list[bytes]:
        library, number = self._library, self._client.channel_id
        if (method := methods.get(key := (item.exchange, item.routing_key))) is None:
            told = library.commands.Basic.Publish(0, *key, mandatory=True)
            method = methods[key] = library.marshal(told, number)
        if (header := header_of(number, item)) is None:
            header = library.marshal(self._header(item), number)
        return [method, header, *bodies_of(number, item.body, self._connection.frame_max)]

    def _header(self, item: Publishing) -> Any:
        library, told = self._library, dict(item.properties)
        _check_names(told.get("headers"))
        if isinstance(at := told.get("timestamp"), (int, float)):
            told["timestamp"] = datetime.fromtimestamp(at, timezone.utc)
        if "type" in told:
            told["message_type"] = told.pop("type")
        return library.header.ContentHeader(
            body_size=len(item.body), properties=library.properties(**told)
        )

    def close(self) -> None:
        with suppress(Exception):
            if self._connection.is_open and self._client.is_open:
                self._reason = None  # that of a consumer, whose channel is open all the same
                self._client.remove_consumer_tag()  # they end with it
                self._client.close()
        self._connection.forget(self._client.channel_id)


def _check_names(value: Any) -> None:
    """Look through a header, or all, for names that would be cut.

    Raises:
        Unwritable: there is one; names it.
    """
    if isinstance(value, dict):
        for name, each in value.items():
            # a letter has 4 bytes at most
            if len(name) > LONGEST // 4 and len(name.encode()) > LONGEST:
                raise Unwritable(
                    f"amqpstorm writes no header whose name has more than {LONGEST} bytes, as"
                    f" {name!r} has; give it a shorter one"
                )
            if isinstance(each, (dict, list)):
                _check_names(each)
    elif isinstance(value, list):
        for each in value:
            _check_names(each)


def _writable(value: Any) -> Any:
    """Return a header, or all, of another program as it can be sent on.

    A text of no UTF-8 becomes bare bytes. A name that is too long is cut: else its message could
    neither be tried again nor become a dead letter.
    """
    if isinstance(value, dict):
        return {_cut(name): _writable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_writable(each) for each in value]
    return bytearray(value) if isinstance(value, bytes) else value


def _cut(name: str) -> str:
    return name.encode()[:LONGEST].decode(errors="ignore")
