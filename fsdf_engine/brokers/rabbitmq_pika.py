"""RabbitMQ's protocol by pika: its connection for event loops, of which the loop is turned here.

`BlockingConnection` would wait for the confirm of each message before it sends the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from ..errors import FsdfError, MissingExtra
from ..green import active_hub
from ..unpatched import unpatched
from .amqp_client import REFUSALS, AmqpChannel, AmqpConnection, Endpoint, refused, unreachable
from .pika_channel import PikaChannel, told
from .pika_wire import Wire
from .rabbitmq import RabbitBroker

__all__ = ["PikaConnection", "RabbitmqPikaBroker", "library"]


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
    exceptions = library().exceptions
    causes, cause = [error], error
    for cause in [error, *getattr(error, "args", ())]:
        causes += getattr(cause, "exceptions", None) or [cause]
    for cause in causes:
        no_way_in = isinstance(cause, exceptions.AuthenticationError)  # none that the server offers
        if no_way_in or getattr(cause, "reply_code", 0) in REFUSALS:
            return refused(place, told(cause))
    guesses = exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError
    doubt = " It may also be the user, the password or the vhost." * isinstance(error, guesses)
    return unreachable(place, told(causes[-1]), doubt)


class PikaConnection(AmqpConnection):
    """See `AmqpConnection`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.pika = library()
        self.endpoint, self._place = endpoint, f"{endpoint.host}:{endpoint.port}"
        self._loop = self.pika.adapters.select_connection.IOLoop()
        self._loop.activate_poller()
        self._error: BaseException | None = None
        self._said: BaseException | None = None  # by the server, in closing it
        self._open, self._blocked = False, ""
        self._connection: Any = None
        try:
            self._connection = self.pika.SelectConnection(
                self._parameters(endpoint),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_end,
                on_close_callback=self._on_end,
                custom_ioloop=self._loop,
            )
            close = self.pika.spec.Connection.Close
            self._connection.callbacks.add(0, close, self._on_close)
            self.wire = Wire(self.pika, self._connection)
            self.until(lambda: self._open, endpoint.timeout)
        except BaseException:
            self.close()
            raise

    def _parameters(self, endpoint: Endpoint) -> Any:
        pika, tls = self.pika, endpoint.tls
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
        self.wire.opened()
        self._open = True

    def _on_close(self, frame: Any) -> None:
        """Keep what the server says: before the connection is open, pika would guess instead."""
        said = frame.method
        closed = self.pika.exceptions.ConnectionClosedByBroker
        self._said = closed(said.reply_code, said.reply_text)

    def _on_end(self, _: Any, error: BaseException) -> None:
        self._error = self._said or error or ConnectionError("the connection has ended")

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
                self.wire.flush()
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


class RabbitmqPikaBroker(RabbitBroker):
    """RabbitMQ by pika."""

    def client(self, endpoint: Endpoint) -> AmqpConnection:
        return PikaConnection(endpoint)
