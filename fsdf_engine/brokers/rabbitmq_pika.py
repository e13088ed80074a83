"""RabbitMQ's protocol by pika: its connection for event loops, of which the loop is turned here.

`BlockingConnection` would wait for the confirm of each message before it sends the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from ..errors import FsdfError, MissingExtra, ServerRefused, Unanswered, Unavailable
from ..green import active_hub
from ..unpatched import unpatched
from .amqp_client import (
    AmqpChannel,
    AmqpConnection,
    ChannelClosed,
    Confirmed,
    Endpoint,
    Publishing,
    Received,
)
from .amqp_confirms import Confirms
from .rabbitmq import RabbitBroker

__all__ = ["PikaConnection", "RabbitmqPikaBroker", "library"]
REFUSALS = (403, 530)  # reply codes: a password, a vhost


def library() -> Any:
    """Return the client library, as it is without patching.

    Raises:
        MissingExtra: it is not installed.
    """
    return _loaded(active_hub())


@cache
def _loaded(hub: str | None) -> Any:
    try:
        unpatched("pika.adapters.select_connection")
        pika = unpatched("pika")
    except ImportError as error:
        raise MissingExtra(
            'RabbitMQ by pika needs its client; run: pip install "fsdf[pika]"'
        ) from error
    logger = logging.getLogger(pika.__name__)
    if logger.level == logging.NOTSET:  # what it tells as an error is told by us, or told twice
        logger.setLevel(logging.CRITICAL)
    return pika


def translated(error: BaseException | None, place: str) -> FsdfError:
    """Return our error for one of the client's about a connection."""
    pika = library()
    refused = (
        pika.exceptions.AuthenticationError,
        pika.exceptions.ProbableAuthenticationError,
        pika.exceptions.ProbableAccessDeniedError,
    )
    causes, cause = [error], error
    for cause in [error, *getattr(error, "args", ())]:
        causes += getattr(cause, "exceptions", None) or [cause]
    for cause in causes:
        if isinstance(cause, refused) or getattr(cause, "reply_code", 0) in REFUSALS:
            return ServerRefused(
                f"RabbitMQ at {place} refuses us: {_told(cause)}; see the user, the password and"
                " the vhost in broker_url or RABBITMQ_URL"
            )
    return Unavailable(f"RabbitMQ at {place}: {_told(causes[-1])}")


def _told(error: Any) -> str:
    text = getattr(error, "reply_text", "") or str(error) or repr(error)
    return str(text)


class PikaConnection(AmqpConnection):
    """See `AmqpConnection`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._pika = library()
        self.endpoint, self._place = endpoint, f"{endpoint.host}:{endpoint.port}"
        self._loop = self._pika.adapters.select_connection.IOLoop()
        self._loop.activate_poller()
        self._error: BaseException | None = None
        self._open, self._blocked = False, ""
        self._connection: Any = None
        try:
            self._connection = self._pika.SelectConnection(
                self._parameters(endpoint),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_end,
                on_close_callback=self._on_end,
                custom_ioloop=self._loop,
            )
            self.until(lambda: self._open, endpoint.timeout)
        except BaseException:
            self.close()
            raise

    def _parameters(self, endpoint: Endpoint) -> Any:
        pika, tls = self._pika, endpoint.tls
        return pika.ConnectionParameters(
            host=endpoint.host,
            port=endpoint.port,
            virtual_host=endpoint.vhost,
            credentials=pika.PlainCredentials(endpoint.user, endpoint.password),
            ssl_options=pika.SSLOptions(tls, endpoint.host) if tls else None,
            heartbeat=endpoint.heartbeat,
            connection_attempts=1,
            socket_timeout=endpoint.timeout,
            stack_timeout=endpoint.timeout,
            client_properties={"connection_name": endpoint.name},
        )

    @property
    def is_open(self) -> bool:
        return self._open and self._error is None

    @property
    def blocked(self) -> str:
        return self._blocked

    def _on_open(self, connection: Any) -> None:
        self.server = connection.server_properties
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open = True

    def _on_end(self, _: Any, error: BaseException) -> None:
        self._error = error or ConnectionError("the connection has ended")

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self._blocked = str(frame.method.reason or "an alarm")

    def _on_unblocked(self, *_: Any) -> None:
        self._blocked = ""

    def lost(self) -> FsdfError:
        """Return the error that says how the connection has ended."""
        error = translated(self._error, self._place)
        error.__cause__ = self._error
        return error

    def turn(self) -> None:
        """Wait for the next event, and deal with it.

        Raises:
            Unavailable: the connection has ended.
        """
        if self._error is None:
            try:
                self._loop.poll()
                self._loop.process_timeouts()
            except Exception as error:  # of a callback of its own: nothing is sure any more
                self._error = error
        if self._error is not None:
            raise self.lost()

    def until(self, done: Callable[[], object], timeout: float) -> None:
        """Turn until it is done.

        Raises:
            Unavailable: the connection has ended, or this has lasted for longer than `timeout`.
        """
        end, timer = time.monotonic() + timeout, None
        while not done():
            if timer is None:
                timer = self._loop.call_later(timeout, lambda: None)
            self.turn()
            if time.monotonic() >= end and not done():
                self._error = TimeoutError(f"no answer within {timeout:g} s")
                raise self.lost()
        if timer is not None:
            self._loop.remove_timeout(timer)

    def channel(self) -> AmqpChannel:
        return PikaChannel(self, self._connection)

    def wait(self, timeout: float | None) -> None:
        if timeout is None:
            return self.turn()
        timer = self._loop.call_later(max(0.0, timeout), lambda: None)
        try:
            self.turn()
        finally:
            self._loop.remove_timeout(timer)

    def wake(self) -> None:
        with suppress(Exception):  # closed meanwhile
            self._loop.add_callback_threadsafe(lambda: None)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(Exception):
            if connection.is_open and self._error is None:
                connection.close()
                self.until(lambda: connection.is_closed, 1.0)
        self._end(connection)

    def _end(self, connection: Any) -> None:
        self._error = self._error or ConnectionError("it was closed")
        with suppress(Exception):  # its own clean-up may find that nothing is there
            if (transport := connection._transport) is not None:
                transport.abort()
        with suppress(Exception):
            for _ in range(3):  # what `abort` has put off
                self._loop.process_timeouts()
        with suppress(Exception):
            self._loop.close()

    def abandon(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(Exception):
            connection._transport._sock.close()
        self._error = ConnectionError("it is the parent's")


class PikaChannel(AmqpChannel):
    """See `AmqpChannel`."""

    def __init__(self, connection: PikaConnection, client: Any) -> None:
        self._connection = connection
        self._reason: BaseException | None = None
        self._confirms: Confirms | None = None
        opened: list[Any] = []
        self._channel = client.channel(on_open_callback=opened.append)
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        self._await(lambda: opened)

    def _on_close(self, _: Any, reason: BaseException) -> None:
        self._reason = self._reason or reason

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
        error = ChannelClosed(code, _told(self._reason))
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
        except self._connection._pika.exceptions.AMQPError as error:
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
        answer = self._ask(self._channel.basic_consume, queue, came)
        return answer.consumer_tag  # type: ignore[no-any-return]

    def cancel(self, consumer: str) -> None:
        answers: list[Any] = []
        self._send(self._channel.basic_cancel, consumer, callback=answers.append)
        # or it would give back what is on its way, as if a lease of it were lost
        getattr(self._channel, "_cancelled", set()).discard(consumer)
        self._await(lambda: answers)

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self._send(self._channel.basic_ack, tag, multiple)

    def nack(self, tag: int, *, requeue: bool = True) -> None:
        self._send(self._channel.basic_nack, tag, False, requeue)

    def properties_of(self, message: Received) -> dict[str, Any]:
        return {name: value for name, value in vars(message.source).items() if value is not None}

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
        try:
            self._publish(batch, confirms)
            self._connection.until(lambda: confirms.over or not self._takes(), patience)
            if not confirms.over:
                why = self._stopped()
        except (ChannelClosed, FsdfError) as error:
            why = error
        return confirms.answer(why)

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

        self._channel.add_on_return_callback(returned)
        self._ask(self._channel.confirm_delivery, answered)
        return confirms

    def _publish(self, batch: Sequence[Publishing], confirms: Confirms) -> None:
        make, publish = self._connection._pika.BasicProperties, self._channel.basic_publish
        for item in batch:  # all before the first: what is not sent is not stored
            confirms.expect(item)
        for item in batch:
            told = make(**item.properties)
            self._send(publish, item.exchange, item.routing_key, item.body, told, mandatory=True)

    def close(self) -> None:
        with suppress(Exception):
            if self._connection.is_open and self._channel.is_open:
                self._reason = None  # that of a consumer, whose channel is open all the same
                self._channel.close()
                self._await(lambda: self._channel.is_closed)


class RabbitmqPikaBroker(RabbitBroker):
    """RabbitMQ by pika."""

    def client(self, endpoint: Endpoint) -> AmqpConnection:
        return PikaConnection(endpoint)
