"""A channel by pika, whose waits are turns of the connection's loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import FsdfError, Unanswered, Unavailable
from .amqp_client import AmqpChannel, ChannelClosed, Confirmed, Publishing, Received, Unwritable
from .amqp_confirms import Confirms
from .amqp_frames import OFTEN
from .pika_wire import Sink

if TYPE_CHECKING:
    from .rabbitmq_pika import PikaConnection

__all__ = ["PikaChannel", "told"]


def told(error: Any) -> str:
    """Return what an error of the client's says."""
    text = getattr(error, "reply_text", "") or str(error) or repr(error)
    return str(text)


class PikaChannel(AmqpChannel):
    """See `AmqpChannel`."""

    def __init__(self, connection: PikaConnection, client: Any) -> None:
        self._connection = connection
        self._reason: BaseException | None = None
        self._confirms: Confirms | None = None
        self._tags = itertools.count(1)
        self._wire, self._sink = connection.wire, Sink(connection.pika)
        opened: list[Any] = []
        self._channel = client.channel(on_open_callback=opened.append)
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        self._number = self._channel.channel_number
        self._wire.sinks[self._number] = self._sink
        self._await(lambda: opened)

    def _on_close(self, _: Any, reason: BaseException) -> None:
        self._reason = self._reason or reason
        if self._wire.sinks.get(self._number) is self._sink:
            del self._wire.sinks[self._number]

    def _on_cancel(self, _: Any) -> None:
        self._reason = self._reason or ChannelClosed(404, "the queue was deleted")

    @property
    def is_open(self) -> bool:
        return self._reason is None and self._connection.is_open

    def closed(self) -> Exception:
        """Return the error that says how the channel has ended."""
        if not self._connection.is_open:
            return self._connection.lost()
        if isinstance(self._reason, ChannelClosed):
            return self._reason
        code = getattr(self._reason, "reply_code", 0)
        error = ChannelClosed(code, told(self._reason))
        error.__cause__ = self._reason
        return error

    def _await(self, done: Callable[[], object]) -> None:
        timeout = self._connection.endpoint.timeout
        self._connection.until(lambda: done() or self._reason is not None, timeout)
        if self._reason is not None and not done():
            raise self.closed()

    def _ask(self, method: Callable[..., object], *args: Any, **options: Any) -> Any:
        answers: list[Any] = []
        self._send(method, *args, **options, callback=answers.append)
        self._await(lambda: answers)
        return answers[0].method

    def _send(self, method: Callable[..., object], *args: Any, **options: Any) -> None:
        if not self.is_open:
            raise self.closed()
        try:
            method(*args, **options)
        except self._connection.pika.exceptions.AMQPError as error:
            self._reason = self._reason or error
            raise self.closed() from error

    def declare(self, queue: str, arguments: Mapping[str, Any], *, durable: bool = True) -> None:
        self._ask(self._channel.queue_declare, queue, durable=durable, arguments=dict(arguments))

    def count(self, queue: str) -> tuple[int, int]:
        told = self._ask(self._channel.queue_declare, queue, passive=True)
        return told.message_count, told.consumer_count

    def declare_exchange(self, exchange: str, kind: str) -> None:
        self._ask(self._channel.exchange_declare, exchange, exchange_type=kind, durable=True)

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self._ask(self._channel.queue_bind, queue, exchange, routing_key=routing_key)

    def purge(self, queue: str) -> int:
        return self._ask(self._channel.queue_purge, queue).message_count  # type: ignore[no-any-return]

    def consume(self, queue: str, prefetch: int, take: Callable[[Received], object]) -> str:
        def came(_: Any, method: Any, properties: Any, body: bytes) -> None:
            told = properties
            take(
                Received(
                    method.delivery_tag, method.redelivered, body, told.headers, told.message_id,
                    told.priority, told.timestamp, told,
                )
            )  # fmt: skip

        self._ask(self._channel.basic_qos, prefetch_count=prefetch)
        tag = f"fsdf-{next(self._tags)}"
        if self._wire.short:
            self._sink.consumers[tag.encode()] = take
        self._ask(self._channel.basic_consume, queue, came, consumer_tag=tag)
        return tag

    def cancel(self, consumer: str) -> None:
        answers: list[Any] = []
        self._send(self._channel.basic_cancel, consumer, callback=answers.append)
        # or it would give back what is on its way, as if a lease of it were lost
        getattr(self._channel, "_cancelled", set()).discard(consumer)
        self._await(lambda: answers)
        self._sink.consumers.pop(consumer.encode(), None)

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self._send(self._channel.basic_ack, tag, multiple)

    def nack(self, tag: int, *, requeue: bool = True) -> None:
        self._send(self._channel.basic_nack, tag, False, requeue)

    def properties_of(self, message: Received) -> dict[str, Any]:
        told = message.source
        if isinstance(told, bytes):
            told = self._sink.properties(told)
        return {name: value for name, value in vars(told).items() if value is not None}

    def publish(self, batch: Sequence[Publishing], patience: float) -> Confirmed:
        places, confirms = range(len(batch)), self._confirms
        if self._connection.blocked:
            text = f"the server takes no messages: {self._connection.blocked}"
            return Confirmed(unknown=places, error=Unavailable(text))
        try:
            confirms = confirms or self._select()
        except (ChannelClosed, FsdfError) as error:
            return Confirmed(unknown=places, error=error)
        why: Exception | None = None
        left = iter(batch)
        try:
            self._publish(left, confirms)
            self._connection.until(lambda: confirms.over or not self._takes(), patience)
            if not confirms.over:
                why = self._stopped()
        except (ChannelClosed, FsdfError) as error:
            why = error
        return confirms.answer(why, left)

    def _takes(self) -> bool:
        return self.is_open and not self._connection.blocked

    def _stopped(self) -> Exception:
        if not self.is_open:
            return self.closed()
        return Unanswered(f"the server takes no messages: {self._connection.blocked}")

    def _select(self) -> Confirms:
        self._confirms = confirms = Confirms()

        def answered(frame: Any) -> None:
            told = frame.method
            confirms.answered(told.delivery_tag, told.multiple, told.NAME == "Basic.Nack")

        def returned(_: Any, method: Any, properties: Any, body: bytes) -> None:
            confirms.returned(method.routing_key, properties.message_id)

        self._sink.confirms = confirms.answered
        self._channel.add_on_return_callback(returned)
        self._ask(self._channel.confirm_delivery, answered)
        return confirms

    def _publish(self, batch: Iterable[Publishing], confirms: Confirms) -> None:
        if self._wire.short:
            return self._send(self._write, batch, confirms)
        pika, publish = self._connection.pika, self._channel.basic_publish
        for item in batch:
            confirms.expect(item)
            try:
                told = pika.BasicProperties(**item.properties)
                pika.frame.Header(self._number, len(item.body), told).marshal()
            except Exception as error:  # the library's, of any kind
                confirms.withdraw(item, error)
                continue
            self._send(publish, item.exchange, item.routing_key, item.body, told, mandatory=True)
        return None

    def _write(self, batch: Iterable[Publishing], confirms: Confirms) -> None:
        """Publish, and let the server begin with the first while the last are written."""
        wire, number, size = self._wire, self._number, 0
        methods: dict[tuple[str, str], bytes] = {}
        for item in batch:
            confirms.expect(item)
            try:
                if (method := methods.get(key := (item.exchange, item.routing_key))) is None:
                    method = methods[key] = wire.method(number, *key)
                size += wire.publish(number, item, method)
            except Unwritable as error:
                confirms.withdraw(item, error)
            if size >= OFTEN:
                size = 0
                self._connection.wait(0.0)
                if not self.is_open:
                    raise self.closed()

    def close(self) -> None:
        with suppress(Exception):
            if self._connection.is_open and self._channel.is_open:
                self._reason = None  # that of a consumer, whose channel is open all the same
                self._channel.close()
                self._await(lambda: self._channel.is_closed)
