"""What the brokers of RabbitMQ are, whichever client speaks to the server; see `amqp_client`.

A connection publishes, one asks, and each subscription has its own: an alarm that stops publishers
stops no acknowledgement. How queues and messages look is told by `rabbitmq_names` and
`rabbitmq_message`.
"""

from __future__ import annotations

import logging
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypeVar

from ..contracts import (
    Again,
    Broker,
    Capability,
    DeadMessage,
    Letter,
    Outgoing,
    Part,
    QueueSize,
    Subscription,
    unchanged,
)  # fmt: skip
from ..errors import PublishError, ServerRefused, Unavailable
from ..green import Event
from .amqp_client import (
    AmqpConnection,
    ChannelClosed,
    Confirmed,
    Endpoint,
    Publishing,
    on_channel,
)
from .amqp_owner import Owner
from .rabbitmq_letters import Letters
from .rabbitmq_message import buried, outgoing
from .rabbitmq_names import after, dead, needs, valid
from .rabbitmq_publisher import Publisher
from .rabbitmq_server import MOST, Shape, server_of
from .rabbitmq_subscription import RabbitSubscription
from .rabbitmq_topology import Topology
from .rabbitmq_url import target

__all__ = ["RabbitBroker"]
log = logging.getLogger("fsdf.rabbitmq")
T = TypeVar("T")
LOOKS = 5  # at a queue of which messages move meanwhile
APART = 0.05  # seconds; what is on its way from one rung to the next is in no count
HEARTBEAT = 10  # seconds, of the connections that hold no leases


class RabbitBroker(Broker):
    """A RabbitMQ. A subclass names the client that speaks to it.

    `queue_type=classic` in the URL has queues made as classic ones, which know priorities; what is
    there already is taken as it is.
    """

    capabilities: Capability = MOST
    setting: ClassVar[str] = "RABBITMQ_URL"
    hints: ClassVar[Mapping[Capability, str]] = {
        Capability.PRIORITY: "put ?queue_type=classic into the broker's URL, and queues that are"
        " made from then on have priorities (one that is there stays as it is), or use RabbitMQ 4.3"
    }

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._target = target(url)
        self._topology = Topology(self._target.queue_type)
        self._publisher = Publisher(partial(self._connect, HEARTBEAT, "publish"), "fsdf-publish")
        self._asker = Owner(partial(self._connect, HEARTBEAT, "ask"), "fsdf-ask")
        self._subscriptions: weakref.WeakSet[RabbitSubscription] = weakref.WeakSet()
        self._letters = Letters(self._asker, self._publisher, self._topology)
        self._urgent = set[str]()  # queues to which something of a priority was published

    @abstractmethod
    def client(self, endpoint: Endpoint) -> AmqpConnection:
        """Connect, by the client library.

        Raises:
            MissingExtra: it is not installed.
            Unavailable, ServerRefused: as an `AmqpConnection` does.
        """

    def _connect(self, heartbeat: int, name: str) -> AmqpConnection:
        """Connect to the first server that answers."""
        error: Unavailable | None = None
        for endpoint in self._target.endpoints:
            told = replace(endpoint, heartbeat=heartbeat, name=f"fsdf {name}")
            try:
                connection = self.client(told)
            except Unavailable as caught:
                error = caught
                continue
            self._topology.forget()
            return connection
        raise error or Unavailable("neither broker_url nor RABBITMQ_URL names a server")

    @classmethod
    def valid_queue(cls, name: str) -> None:
        super().valid_queue(name)
        valid(name)

    def _ask(self, fn: Callable[[AmqpConnection], T]) -> T:
        """Return what `fn` does with the connection that asks.

        Raises:
            Unavailable, ServerRefused: see `publish`.
        """
        try:
            return self._asker(lambda: fn(self._asker.connection()))
        except ChannelClosed as error:
            if error.code == 403:
                raise _refused(error) from error
            raise Unavailable(f"RabbitMQ has ended the channel: {error}") from error

    def _shape(self, queue: str) -> Shape:
        known = self._topology.shapes.get(queue)
        return known or self._ask(lambda connection: self._topology.shape(connection, queue))

    def publish(self, batch: Sequence[Outgoing]) -> None:
        rest = list(batch)
        for last in (False, True):
            told = self._publish_once(rest)
            if not told.missing:
                return
            returned = [rest[n] for n in told.returned]
            if last or not returned or told.unknown or told.refused or told.unfit:
                break
            for item in returned:  # somebody has deleted the queue
                self._topology.forget(item.queue)
            rest = returned
        rejected = [rest[n] for n in sorted({*told.refused, *told.returned, *told.unfit})]
        unknown = [rest[n] for n in told.unknown]
        if isinstance(told.error, ChannelClosed):
            for item in rest:  # an exchange may be gone
                self._topology.forget(item.queue)
            if told.error.code == 403 and not rejected:
                raise _refused(told.error) from told.error
            if len(rest) == 1:  # it alone is at fault
                rejected, unknown = rest, []
        raise PublishError(rejected, unknown) from told.error or next(
            iter(told.unfit.values()), None
        )

    def _publish_once(self, batch: Sequence[Outgoing]) -> Confirmed:
        shapes = {queue: self._shape(queue) for queue in {item.queue for item in batch}}
        now = time.time()
        items = [outgoing(item, shapes[item.queue], now) for item in batch]
        for queue in {item.queue for item in batch if item.priority} - self._urgent:
            self._tell_of_order(queue)
        for queue in shapes:
            self._prepare(queue, [told for item, told in zip(batch, items) if item.queue == queue])
        return self._publisher(items)

    def _tell_of_order(self, queue: str) -> None:
        """Say once where a message's priority does not count for much."""
        self._urgent.add(queue)
        if Capability.PRIORITY not in self.capabilities_of(queue):
            log.warning(
                "queue %s has no priorities: only what a worker has fetched is put in their order;"
                " %s",
                queue,
                self.hints[Capability.PRIORITY],
            )

    def _prepare(self, queue: str, items: Sequence[Publishing]) -> None:
        """See that what these are published to is there beside the queue."""
        ways = {(item.exchange, item.routing_key) for item in items} - {("", queue)}
        if ("", dead(queue)) in ways:
            self._letters.need(queue)
        if ways:
            self._prepare_rungs(queue, ways)

    def _prepare_rungs(self, queue: str, ways: Collection[tuple[str, str]]) -> None:
        rungs, counts = self._topology.rungs, [needs(queue, *way) for way in ways]
        wanted = dict(zip(("quick", "long"), map(max, zip(*counts, strict=True))))
        made = all(rungs.made(queue, kind) >= count for kind, count in wanted.items())
        later = rungs.unseen({name for way in ways for name in after(queue, *way)})
        if made and later and self._ask(lambda connection: rungs.lack(connection, later)):
            rungs.forget(queue)  # somebody has deleted one
        for kind, count in wanted.items():
            if rungs.made(queue, kind) < count:
                self._ask(partial(self._make_rungs, queue, kind, count))

    def _make_rungs(self, queue: str, kind: str, count: int, connection: AmqpConnection) -> None:
        self._topology.shape(connection, queue)  # it has to be there
        self._topology.rungs.make(connection, queue, kind, count)

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        found = RabbitSubscription(
            queue,
            partial(self._connect, max(1, int(lease / 2)), f"consume {queue}"[:200]),
            self._topology,
            self._publish_copies,
        )
        self._subscriptions.add(found)
        return found

    def _publish_copies(self, queue: str, items: Sequence[Publishing]) -> Confirmed:
        self._prepare(queue, items)
        return self._publisher(items)

    def _of(self, queue: str) -> Iterator[RabbitSubscription]:
        return (sub for sub in list(self._subscriptions) if sub.queue == queue)

    def size(self, queue: str) -> QueueSize:
        subs, before = list(self._of(queue)), None
        for _ in range(LOOKS):
            counts = self._ask(lambda connection: self._count(connection, queue))
            found = counts, [sub.let_come() for sub in subs]
            if found == before:  # nothing was on its way while it was counted
                break
            if self._topology.rungs.moves(queue):
                Event().wait(APART)
            before = found
        delayed, waiting, letters = counts
        for sub in subs:
            due, early = sub.buffer.sizes()
            waiting, delayed = waiting + due, delayed + early
        return QueueSize(waiting, delayed, -1, letters)

    def _count(self, connection: AmqpConnection, queue: str) -> tuple[int, int, int]:
        return (
            self._count_delayed(connection, queue),
            _ready(connection, queue),
            _ready(connection, dead(queue)),
        )

    def _count_delayed(self, connection: AmqpConnection, queue: str) -> int:
        rungs = self._topology.rungs.names(connection, queue)
        try:
            return on_channel(connection, lambda ch: sum(ch.count(name)[0] for name in rungs))
        except ChannelClosed as error:
            if error.code != 404:
                raise
        self._topology.rungs.forget(queue)  # somebody has deleted one
        return sum(_ready(connection, name) for name in rungs)

    def queues(self) -> Sequence[str]:
        return ()

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        if parts & (Part.WAITING | Part.DELAYED):
            for sub in self._of(queue):  # what is in a buffer goes back, and is purged there
                sub.rest()
        return self._ask(lambda connection: self._purge(connection, queue, parts))

    def _purge(self, connection: AmqpConnection, queue: str, parts: Part) -> int:
        names = [queue] if Part.WAITING in parts else []
        if Part.DELAYED in parts:  # as messages go, or what moves on would be passed by
            names = [*self._topology.rungs.names(connection, queue), *names]
        if Part.DEAD in parts:
            names.append(dead(queue))
        return sum(_purged(connection, name) for name in names)

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        found = self._letters.look(queue)
        return [letter for letter, _ in found[offset : offset + limit]]

    def bury(self, batch: Sequence[Letter]) -> None:
        for queue in dict.fromkeys([item.queue for item in batch]):
            shape = self._shape(queue)
            letters = [buried(item, shape) for item in batch if item.queue == queue]
            self._letters.bury(queue, letters)

    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        self._shape(queue)
        return self._letters.replay(queue, ids, again)

    def capabilities_of(self, queue: str) -> Capability:
        shape = self._shape(queue)
        return self._ask(lambda connection: shape.capabilities(server_of(connection.server)))

    def check(self) -> None:
        server = self._ask(lambda connection: server_of(connection.server))
        wanted = self._topology.wanted(server)
        lines = int(wanted.get("x-max-priority", 0))
        kind = str(wanted.get("x-queue-type", "classic"))
        self.capabilities = Shape(kind, lines).capabilities(server)

    def close(self) -> None:
        self._publisher.close()
        self._asker.close()


def _refused(error: ChannelClosed) -> ServerRefused:
    return ServerRefused(
        f"RabbitMQ refuses it: {error}; give the user in broker_url or RABBITMQ_URL the right"
    )


def _ready(connection: AmqpConnection, queue: str) -> int:
    """Count what waits in a queue; nothing does in one that is not there."""
    try:
        return on_channel(connection, lambda ch: ch.count(queue)[0])
    except ChannelClosed as error:
        if error.code == 404:
            return 0
        raise


def _purged(connection: AmqpConnection, queue: str) -> int:
    try:
        return on_channel(connection, lambda ch: ch.purge(queue))
    except ChannelClosed as error:
        if error.code == 404:
            return 0
        raise
