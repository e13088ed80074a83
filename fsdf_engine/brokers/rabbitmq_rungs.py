"""Where in RabbitMQ what is delayed waits: which rungs there are, and how they are made.

A rung is never deleted by itself (`x-expires`): with one that nobody used went what was in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import ServerRefused
from .amqp_client import AmqpChannel, AmqpConnection, ChannelClosed, on_channel
from .rabbitmq_names import (
    FORMER,
    QUICK,
    RUNGS,
    TENTH,
    end_at,
    first,
    former,
    gate,
    key_at,
    lasts,
    level_of,
    long,
    quick,
    quick_lasts,
)
from .rabbitmq_server import server_of

__all__ = ["Rungs"]
SELDOM = 60.0  # seconds: a server logs each look for what is not there
OFTEN = 1.0  # seconds between two looks for a rung that somebody may delete
# What names those of a kind, which are made in this order, and how many there may be.
KINDS: dict[str, tuple[Callable[[str, int], str], int]] = {
    "quick": (quick, QUICK), "long": (long, RUNGS), "former": (former, FORMER),
}  # fmt: skip


class Rungs:
    """What is known of the rungs of one broker's queues. Any thread; a race asks twice."""

    def __init__(self) -> None:
        # By queue and kind, so many from the first: that are finished, and that are there.
        self._made: dict[tuple[str, str], int] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._looks: dict[str, float] = {}  # by queue, when to look for those of former versions
        self._there: dict[str, float] = {}  # by name, until when a rung is taken to be there
        self._looking: tuple[AmqpConnection, AmqpChannel] | None = None

    def forget(self, queue: str | None = None) -> None:
        """Look again at what is there, of one queue or of all."""
        if queue is None:
            for known in (self._made, self._seen, self._looks, self._there):
                known.clear()
            return
        self._looks.pop(queue, None)
        self._there.clear()
        for kind in KINDS:
            self._made.pop((queue, kind), None)
            self._seen.pop((queue, kind), None)

    def made(self, queue: str, kind: str) -> int:
        """Return how many are finished, as far as is known."""
        return self._made.get((queue, kind), 0)

    def moves(self, queue: str) -> bool:
        """Say whether something may be on its way between queues, as far as is known."""
        return any(self._seen.get((queue, kind)) for kind in KINDS)

    def unseen(self, names: Iterable[str]) -> Sequence[str]:
        """Return those of these rungs that were not looked for of late."""
        now = time.monotonic()
        return [name for name in names if self._there.get(name, 0.0) <= now]

    def lack(self, connection: AmqpConnection, names: Iterable[str]) -> bool:
        """Say whether one of these rungs is not there. Blocks for a round trip for each.

        What has no first rung the server returns. Where a later one is gone what is on its way
        there stays in the one before, and goes on minutes after it is made again.
        """
        known, channel = self._looking or (None, None)
        if channel is None or known is not connection or not channel.is_open:
            channel = connection.channel()
            self._looking = connection, channel
        try:
            for name in names:
                channel.count(name)
                self._there[name] = time.monotonic() + OFTEN
        except ChannelClosed as error:
            channel.close()
            return error.code == 404
        return False

    def make(self, connection: AmqpConnection, queue: str, kind: str, count: int) -> None:
        """See that so many, "quick" or "long", are there and lead to the queue. Blocks.

        Raises:
            ServerRefused: we may not make them.
        """
        if self.made(queue, kind) >= count:
            return
        known = self._count(connection, queue, kind)
        # The last that is there may be somebody's who has not finished it.
        missing = range(max(0, known - 1), count)
        like: dict[str, Any] = {"x-overflow": "reject-publish"}
        if server_of(connection.server).safe_letters:
            like |= {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once"}

        def make(channel: AmqpChannel) -> None:
            if kind == "quick":
                return _make_quick(queue, missing, like, channel)
            _make_gates(queue, level_of(max(known, count) - 1), channel)
            return _make_long(queue, missing, like, channel)

        try:
            on_channel(connection, make)
        except ChannelClosed as error:
            # Somebody who may has made them; an unfinished rung of a long walk would lose messages.
            if error.code != 403 or count > known - (kind == "long"):
                raise ServerRefused(
                    f"RabbitMQ refuses the queues for what is delayed in {queue!r}: {error}; give"
                    f" the user the right to configure {KINDS[kind][0](queue, 0)!r} and its like,"
                    " or use no delays"
                ) from error
        self._made[queue, kind] = self._seen[queue, kind] = max(known, count)

    def _count(self, connection: AmqpConnection, queue: str, kind: str) -> int:
        """Return how many there are: others may have made more. Blocks."""
        name, most = KINDS[kind]
        found = self._seen.get((queue, kind), 0)

        def climb(channel: AmqpChannel) -> None:
            nonlocal found
            while found < most:
                channel.count(name(queue, found))
                found += 1

        try:
            on_channel(connection, climb)
        except ChannelClosed as error:  # the first that is not there ends the channel
            if error.code != 404:
                raise
        self._seen[queue, kind] = found
        return found

    def names(self, connection: AmqpConnection, queue: str) -> Sequence[str]:
        """Return the queues of what is delayed, in the order in which messages go. Blocks."""
        found = list[str]()
        for kind, (name, _) in KINDS.items():
            if kind == "former":
                order = [*reversed(range(self._count_former(connection, queue)))]
            else:
                order = [*range(self._count(connection, queue, kind))]
            if kind == "quick":
                order.sort(key=first, reverse=True)
            found += [name(queue, n) for n in order]
        return found

    def _count_former(self, connection: AmqpConnection, queue: str) -> int:
        """Return how many there are of former versions, which are seldom made any more. Blocks."""
        if (now := time.monotonic()) >= self._looks.get(queue, 0.0):
            self._looks[queue] = now + SELDOM
            return self._count(connection, queue, "former")
        return self._seen.get((queue, "former"), 0)


def _make_quick(
    queue: str, rungs: Iterable[int], like: dict[str, Any], channel: AmqpChannel
) -> None:
    for n in rungs:
        name = quick(queue, n)
        after = {"x-dead-letter-exchange": ""}  # to the queue that the routing key names
        if not first(n):
            after["x-dead-letter-routing-key"] = queue
        ttl = round(1000 * TENTH * quick_lasts(n))
        channel.declare(name, {**like, **after, "x-message-ttl": ttl})
        if first(n):
            channel.declare_exchange(name, "fanout")
            channel.bind(name, name, "")


def _make_gates(queue: str, top: int, channel: AmqpChannel) -> None:
    """Make the exchanges up to behind this level, each with its way out.

    Also those that are there: with a queue that was deleted and made again the ways to it are gone.
    """
    channel.declare_exchange(gate(queue, 0), "topic")
    for level in range(1, top + 2):
        channel.declare_exchange(gate(queue, level), "topic")
        channel.bind(queue, gate(queue, level), end_at(level))


def _make_long(
    queue: str, rungs: Iterable[int], like: dict[str, Any], channel: AmqpChannel
) -> None:
    """Make rungs from below: where one is, those below it are finished."""
    for n in rungs:
        name, level = long(queue, n), level_of(n)
        after = {"x-dead-letter-exchange": gate(queue, level + 1)}
        channel.declare(name, {**like, **after, "x-message-ttl": round(1000 * TENTH * lasts(n))})
        for before in reversed(range(level + 1)):  # what is published comes last
            channel.bind(name, gate(queue, before), key_at(before, n))
