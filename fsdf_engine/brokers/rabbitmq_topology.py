"""Which queues there are, and making those that are missing. In the thread of a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from ..errors import ServerRefused
from .amqp_client import AmqpChannel, AmqpConnection, ChannelClosed
from .rabbitmq_names import RUNGS, TENTH, dead, key_of, rung
from .rabbitmq_server import LIMIT, LINES, Server, Shape, learn, server_of

__all__ = ["Topology", "on_channel"]
T = TypeVar("T")
PROBES = 12  # declarations by which the arguments of a queue of others are learnt


def on_channel(connection: AmqpConnection, fn: Callable[[AmqpChannel], T]) -> T:
    """Return what `fn` does with a channel of its own."""
    channel = connection.channel()
    try:
        return fn(channel)
    finally:
        channel.close()


class Topology:
    """What is known of the queues of one broker, and to be. Any thread; a race asks twice.

    What was there is not looked at again, unless somebody finds that it is gone: `forget`.
    """

    def __init__(self, queue_type: str) -> None:
        self._queue_type = queue_type
        self.shapes: dict[str, Shape] = {}
        self.rungs: dict[str, int] = {}  # how many rungs of a ladder are finished
        self._letters: set[str] = set()

    def forget(self, queue: str | None = None) -> None:
        """Look again at what is there, of one queue or of all."""
        if queue is None:
            self.shapes.clear()
            self.rungs.clear()
            self._letters.clear()
            return
        self.shapes.pop(queue, None)
        self.rungs.pop(queue, None)
        self._letters.discard(queue)

    def shape(self, connection: AmqpConnection, queue: str) -> Shape:
        """Return how a queue is; make it if it is not there. Blocks.

        Raises:
            ServerRefused: we may not, or it is a stream.
        """
        if known := self.shapes.get(queue):
            return known
        shape = self._declared(connection, queue)
        if shape.kind == "stream":
            raise ServerRefused(f"the queue {queue!r} is a stream; choose another name")
        self.shapes[queue] = shape
        return shape

    def wanted(self, server: Server) -> dict[str, Any]:
        """Return the arguments of a queue that we make."""
        if self._queue_type == "quorum" and server.quorum:
            return {"durable": True, "x-queue-type": "quorum", "x-delivery-limit": LIMIT}
        return {"durable": True, "x-max-priority": LINES}

    def _declared(self, connection: AmqpConnection, queue: str) -> Shape:
        arguments: dict[str, Any] | None = self.wanted(server_of(connection.server))
        for _ in range(PROBES):
            if arguments is None:
                break
            told = dict(arguments)
            durable = bool(told.pop("durable"))
            try:
                on_channel(connection, partial(_declare, queue, told, durable))
            except ChannelClosed as error:
                if error.code != 406:
                    return self._without_rights(connection, queue, error)
                arguments = learn(arguments, error.text)
                continue
            return _shape_by(told)
        return self._passive(connection, queue, Shape("unknown", returns=False))

    def _without_rights(
        self, connection: AmqpConnection, queue: str, error: ChannelClosed
    ) -> Shape:
        if error.code != 403:
            raise ServerRefused(f"RabbitMQ refuses the queue {queue!r}: {error}") from error
        return self._passive(connection, queue, Shape("unknown", returns=False, ours=False))

    def _passive(self, connection: AmqpConnection, queue: str, shape: Shape) -> Shape:
        try:
            on_channel(connection, lambda ch: ch.count(queue))
        except ChannelClosed as error:
            raise ServerRefused(
                f"the queue {queue!r} of RabbitMQ cannot be used: {error}; give the user the rights"
                " to configure, write and read it, or declare it"
            ) from error
        return shape

    def ladder(self, connection: AmqpConnection, queue: str, highest: int) -> None:
        """See that the rungs up to this one are there, and lead down to the queue. Blocks.

        Raises:
            ServerRefused: we may not make them.
        """
        if self.rungs.get(queue, 0) > highest:
            return
        self.shape(connection, queue)
        known = self.count_rungs(connection, queue)
        server = server_of(connection.server)
        # The highest that is there may be somebody's who has not finished it.
        missing = range(max(0, known - 1), highest + 1)
        try:
            on_channel(connection, partial(_make_rungs, queue, missing, server))
        except ChannelClosed as error:
            raise ServerRefused(
                f"RabbitMQ refuses the queues for what is delayed in {queue!r}: {error}; give the"
                f" user the right to configure {rung(queue, 0)!r} and its like, or use no delays"
            ) from error
        self.rungs[queue] = max(known, highest + 1)

    def count_rungs(self, connection: AmqpConnection, queue: str) -> int:
        """Return how many rungs there are: others may have made more. Blocks."""
        count = self.rungs.get(queue, 0)
        try:
            on_channel(connection, partial(_climb, queue, climbed := [count]))
        except ChannelClosed as error:
            if error.code != 404:
                raise
        if climbed[0] > count:
            self.rungs[queue] = climbed[0]
        return climbed[0]

    def _has(self, connection: AmqpConnection, queue: str) -> bool:
        try:
            on_channel(connection, lambda ch: ch.count(queue))
        except ChannelClosed as error:
            if error.code == 404:
                return False
            raise
        return True

    def letters(self, connection: AmqpConnection, queue: str) -> None:
        """See that the queue for its dead letters is there. Blocks."""
        if queue in self._letters:
            return
        name = dead(queue)
        try:
            on_channel(connection, lambda ch: ch.declare(name, {}))
        except ChannelClosed as error:
            if error.code not in (403, 406) or not self._has(connection, name):
                raise ServerRefused(
                    f"RabbitMQ refuses the queue {name!r} for dead letters: {error}; give the user"
                    " the right to configure it"
                ) from error
        self._letters.add(queue)


def _declare(queue: str, arguments: dict[str, Any], durable: bool, channel: AmqpChannel) -> None:
    channel.declare(queue, arguments, durable=durable)


def _shape_by(arguments: dict[str, Any]) -> Shape:
    kind = str(arguments.get("x-queue-type", "classic"))
    lines = arguments.get("x-max-priority", 0)
    lines = lines if isinstance(lines, int) and kind == "classic" else 0
    returns = kind == "classic" or arguments.get("x-delivery-limit") == LIMIT
    return Shape(kind, lines, returns, own_lines=lines == LINES)


def _climb(queue: str, climbed: list[int], channel: AmqpChannel) -> None:
    """Count rungs until one is not there, which ends the channel."""
    while climbed[0] < RUNGS:
        channel.count(rung(queue, climbed[0]))
        climbed[0] += 1


def _make_rungs(queue: str, rungs: Iterable[int], server: Server, channel: AmqpChannel) -> None:
    """Make rungs from below: where one is, those below it are finished."""
    safe: dict[str, Any] = {"x-overflow": "reject-publish"}
    if server.safe_letters:
        safe |= {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once"}
    for k in rungs:
        name = rung(queue, k)
        channel.declare_exchange(name, "topic")
        if k:
            after = {"x-dead-letter-exchange": rung(queue, k - 1)}
            channel.bind_exchange(rung(queue, k - 1), name, key_of(k, "0"))
        else:
            after = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
            channel.bind(queue, name, key_of(0, "0"))
        channel.declare(name, {**safe, **after, "x-message-ttl": round(1000 * TENTH * 2**k)})
        channel.bind(name, name, key_of(k, "1"))
