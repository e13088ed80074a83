"""Long runs: no message stays unacknowledged for longer than a server may allow.

A server ends a channel that owes an acknowledgement for too long (`consumer_timeout`), and who may
not set a policy cannot help it. So what has been running for a while is moved, as a copy, into a
queue of this worker's own, of which it is the consumer, and moved on there every `AFTER` seconds.
When the worker dies what is in that queue goes back to the task's queue, once its time to live has
passed, and counts as lost once; the queue itself ends later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..contracts import LeaseId
from ..errors import BrokerError, Unavailable
from .amqp_client import AmqpConnection, Publishing, Received
from .rabbitmq_leases import Lease
from .rabbitmq_message import changed
from .rabbitmq_names import held

__all__ = ["Held"]
LIFE = 15.0  # seconds that a message stays there when nobody has it
LEFT = 4 * LIFE  # seconds after which the queue ends that nobody uses
PLACE = "fsdf-place"  # the header by which a copy is known when it comes
ARRIVAL = 5.0  # seconds that copies may take to come


class Held:
    """The queue of one stream. Of the owner's thread."""

    AFTER = 20.0  # seconds until a message is moved, and moved on

    def __init__(self, connection: AmqpConnection, queue: str) -> None:
        self._connection, self.name = connection, held(queue, os.urandom(8).hex())
        self.channel = connection.channel()
        self._came: dict[str, int] = {}
        self._void: set[str] = set()  # of copies that may come, of what stays where it is
        self.channel.declare(
            self.name,
            {
                "x-message-ttl": round(LIFE * 1000),
                "x-expires": round(LEFT * 1000),
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue,
            },
        )
        self.channel.consume(self.name, 0, self._take)

    def _take(self, message: Received) -> None:
        place = str((message.headers or {}).get(PLACE, ""))
        if place in self._void:
            self._void.discard(place)
            self.channel.ack(message.tag)
        else:
            self._came[place] = message.tag

    def move(
        self,
        leases: Sequence[tuple[LeaseId, Lease]],
        store: Callable[[Sequence[Publishing]], object],
    ) -> list[int]:
        """Move what is held elsewhere, or here for long; return the tags that it had here.

        Raises:
            BrokerError: all are where they were, and copies that come here are dropped.
        """
        places = {f"{lease[0]}.{lease[1]}.{os.urandom(4).hex()}": found for lease, found in leases}
        try:
            store([self._copy(place, found) for place, found in places.items()])
            self._await(places)
        except BrokerError:
            self._void |= places.keys() - self._came.keys()
            for place in places.keys() & self._came.keys():
                self.channel.ack(self._came.pop(place))
            raise
        before = [found.held for found in places.values() if found.held]
        for place, found in places.items():
            found.held, found.at = self._came.pop(place), time.monotonic()
        return before

    def _await(self, places: Collection[str]) -> None:
        """Wait until copies have come."""
        end = time.monotonic() + ARRIVAL
        while not self._came.keys() >= set(places):
            if (left := end - time.monotonic()) <= 0:
                raise Unavailable(f"copies do not come from {self.name!r}")
            self._connection.wait(left)

    def _copy(self, place: str, found: Lease) -> Publishing:
        told: dict[str, Any] = changed(found.properties(), found.id, found.state, found.lost)
        told["headers"][PLACE] = place
        return Publishing(self.name, found.message.body, told)

    def ack(self, tags: Collection[int]) -> None:
        """End what is here, and see that the server has heard of it."""
        for tag in tags:
            self.channel.ack(tag)
        self.prove()

    def prove(self) -> None:
        """Ask the server whether the channel lives."""
        self.channel.count(self.name)
