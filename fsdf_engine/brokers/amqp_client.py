"""The seam between what the RabbitMQ brokers do and the client that speaks to the server.

A client is an `AmqpConnection` that gives `AmqpChannel`s: synchronous, and owned by the one thread
that has made it; only `wake` may be called by others. The brokers are written over these two, once;
`rabbitmq_pika.py` and its kind translate one client library each, its exceptions included:

- the server cannot be reached, or the connection has ended: `Unavailable`;
- it refuses us (user, password, vhost): `ServerRefused`;
- it has closed a channel, or refuses what was asked there: `ChannelClosed`.

Durations are float seconds. Properties of messages are dicts, by the names of AMQP 0-9-1 with
underscores (`message_id`, `headers`, `delivery_mode`, ...), only what is set; texts are str.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ..errors import ServerRefused, Unavailable

__all__ = [
    "AmqpChannel", "AmqpConnection", "ChannelClosed", "Confirmed", "Endpoint", "Publishing",
    "REFUSALS", "Received", "Unwritable", "on_channel", "refused", "unreachable",
]  # fmt: skip

T = TypeVar("T")
REFUSALS = (403, 530)  # reply codes of Connection.Close: a password, a vhost


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server, and how to speak to it.

    `timeout` bounds the whole of connecting, and each answer after it. `heartbeat` in whole
    seconds; the server ends a connection that was silent for two of them.
    """

    host: str
    port: int
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: ssl.SSLContext | None = None
    heartbeat: int = 7
    timeout: float = 5.0
    name: str = "fsdf"  # of the connection, as the server's tools show it


def refused(place: str, why: object) -> ServerRefused:
    """Return the error for a connection that the server has closed with one of `REFUSALS`."""
    return ServerRefused(
        f"RabbitMQ at {place} refuses us: {why}; see the user, the password and the vhost in"
        " broker_url or RABBITMQ_URL"
    )


def unreachable(place: str, why: object, doubt: str = "") -> Unavailable:
    """Return the error for a connection that was not made, or has ended."""
    return Unavailable(f"RabbitMQ at {place} cannot be reached ({why}); is it running?{doubt}")


class Publishing(NamedTuple):
    """What is published: by the default exchange the routing key is the queue's name."""

    routing_key: str
    body: bytes
    properties: dict[str, Any]
    exchange: str = ""


class Confirmed(NamedTuple):
    """What has become of a batch, by places in it; what is in none of them is stored.

    `refused`: the server said no (a full queue). `returned`: no queue has taken it. `unknown`: the
    connection or the channel ended first, by `error`. `unfit`: the client cannot write it, and why;
    nothing of it was sent.
    """

    refused: Sequence[int] = ()
    returned: Sequence[int] = ()
    unknown: Sequence[int] = ()
    error: Exception | None = None
    unfit: Mapping[int, Exception] = MappingProxyType({})

    @property
    def missing(self) -> set[int]:
        """All that is not, or perhaps not, stored."""
        return {*self.refused, *self.returned, *self.unknown, *self.unfit}


class Received:
    """One message from the server. `source` is the client's own object, for `properties_of`."""

    __slots__ = (
        "body", "headers", "message_id", "priority", "redelivered", "source", "tag", "timestamp",
    )  # fmt: skip

    def __init__(
        self,
        tag: int,
        redelivered: bool,
        body: bytes,
        headers: Mapping[str, Any] | None,
        message_id: str | None,
        priority: int | None,
        timestamp: float | None,
        source: Any,
    ) -> None:
        self.tag, self.redelivered, self.body = tag, redelivered, body
        self.headers, self.message_id, self.priority = headers, message_id, priority
        self.timestamp, self.source = timestamp, source


class ChannelClosed(Exception):
    """The server has closed the channel; `code` is its reply code, 404 where a queue is not there.

    The channel can do nothing more; another one of the connection can.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code, self.text = code, text


class Unwritable(Exception):
    """A client cannot write a message; nothing of it was sent."""


class AmqpChannel(ABC):
    """A channel; its calls wait for the server's answer, at most for the endpoint's `timeout`.

    Only `ack` and `nack` have none: they leave with the next call that waits. While a call waits,
    what else comes is taken as it comes: messages go to their consumers.

    Every method raises ChannelClosed or Unavailable.
    """

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Say whether neither side is known to have ended it."""

    @abstractmethod
    def declare(self, queue: str, arguments: Mapping[str, Any], *, durable: bool = True) -> None:
        """Make a queue that is neither exclusive nor deleted with its users, or see that it is."""

    @abstractmethod
    def count(self, queue: str) -> tuple[int, int]:
        """Return how many messages are ready in the queue, and how many consumers it has.

        By a passive declaration. It answers after all that this channel has sent before.
        """

    @abstractmethod
    def declare_exchange(self, exchange: str, kind: str) -> None:
        """Make a durable exchange, or see that it is there."""

    @abstractmethod
    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Delete what is ready in the queue; return how many."""

    @abstractmethod
    def publish(self, batch: Sequence[Publishing], patience: float) -> Confirmed:
        """Publish with `mandatory`, and wait for the confirms of all, at most `patience` seconds.

        The first call puts the channel into confirm mode. All leave before the first confirm is
        waited for. Each has a `message_id`, by which, with its key, what is returned is known.
        Raises nothing: what happens is in the answer. What cannot be written keeps no other from
        being sent. Without confirms in time, or as soon as the connection is `blocked`, the rest is
        `unknown` by an `Unanswered`, and the channel must not be used any more.
        """

    @abstractmethod
    def consume(self, queue: str, prefetch: int, take: Callable[[Received], object]) -> str:
        """Begin to consume, with acknowledgements, by a prefetch of this consumer's own.

        Return its tag. `take` is called by the owner's thread whenever it waits, with each message.
        A consumer that the server ends, for its queue is deleted, ends the channel: 404.
        """

    @abstractmethod
    def cancel(self, consumer: str) -> None:
        """End a consumer; what it has brought stays ours. What comes meanwhile is taken."""

    @abstractmethod
    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a message, or with `multiple` all up to it. Waits for nothing."""

    @abstractmethod
    def nack(self, tag: int, *, requeue: bool = True) -> None:
        """Give a message back, or drop it. Waits for nothing."""

    @abstractmethod
    def properties_of(self, message: Received) -> dict[str, Any]:
        """Return all properties that the message came with, fit to be published again."""

    @abstractmethod
    def close(self) -> None:
        """End it; what is not acknowledged goes back. Raises nothing."""


class AmqpConnection(ABC):
    """A connection. The constructor takes an `Endpoint` and connects.

    TCP_NODELAY is set on its socket, and heartbeats are sent whenever the owner waits: it has to
    `wait` for nearly all of its time.

    Raises:
        Unavailable: the server does not answer within the endpoint's timeout.
        ServerRefused: it does not know the user, the password or the vhost.
    """

    server: Mapping[str, Any]  # the server's properties: `product`, `version`, ...

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Say whether neither side is known to have ended it."""

    @property
    @abstractmethod
    def blocked(self) -> str:
        """The server's reason for which it takes no messages now (an alarm); "": it does."""

    @abstractmethod
    def channel(self) -> AmqpChannel:
        """Open a channel."""

    @abstractmethod
    def wait(self, timeout: float | None) -> None:
        """Block until something has come and is dealt with, `wake` is called or the time is over.

        Sends what has to be sent; never polls. None: as long as it takes.

        Raises:
            Unavailable: the connection has ended.
        """

    @abstractmethod
    def wake(self) -> None:
        """End the current `wait`, or the next. Any thread, never blocks; nothing once closed."""

    @abstractmethod
    def close(self) -> None:
        """End the connection, within a second or two. Raises nothing; idempotent."""

    @abstractmethod
    def abandon(self) -> None:
        """Close our copy of the socket and say nothing: in a forked child it is the parent's."""


def on_channel(connection: AmqpConnection, fn: Callable[[AmqpChannel], T]) -> T:
    """Return what `fn` does with a channel of its own."""
    channel = connection.channel()
    try:
        return fn(channel)
    finally:
        channel.close()
