"""Which queues there are, and making those that are missing. In the thread of a connection."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import ServerRefused
from .amqp_client import AmqpChannel, AmqpConnection, ChannelClosed, on_channel
from .rabbitmq_names import dead
from .rabbitmq_rungs import Rungs
from .rabbitmq_server import LIMIT, LINES, Server, Shape, learn, server_of

__all__ = ["Topology"]
PROBES = 12  # declarations by which the arguments of a queue of others are learnt


class Topology:
    """What is known of the queues of one broker, and to be. Any thread; a race asks twice.

    What was there is not looked at again, unless somebody finds that it is gone: `forget`.
    """

    def __init__(self, queue_type: str) -> None:
        self._queue_type = queue_type
        self.shapes: dict[str, Shape] = {}
        self.rungs = Rungs()
        self._letters: set[str] = set()

    def forget(self, queue: str | None = None) -> None:
        """Look again at what is there, of one queue or of all."""
        if queue is None:
            self.shapes.clear()
            self.rungs.forget()
            self._letters.clear()
            return
        self.shapes.pop(queue, None)
        self.rungs.forget(queue)
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
