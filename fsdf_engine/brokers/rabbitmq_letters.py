"""The queue of dead letters: read from its head by a consumer that gives back what it looks at."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from ..contracts import Again, DeadMessage
from ..errors import Unavailable
from ..message import new_id
from .amqp_client import AmqpChannel, AmqpConnection, ChannelClosed, Publishing, Received
from .amqp_owner import Owner
from .rabbitmq_message import changed, letter_of
from .rabbitmq_names import dead
from .rabbitmq_publisher import Publisher, check_stored
from .rabbitmq_topology import Topology

__all__ = ["Letters"]
PAGE = 1000  # letters that are seen
SILENCE = 1.0  # seconds without a letter after which another reader is taken to have the others


class Letters:
    """The dead letters of one broker's queues. Any thread."""

    def __init__(self, asker: Owner, publisher: Publisher, topology: Topology) -> None:
        self._asker, self._publisher, self._topology = asker, publisher, topology

    def need(self, queue: str) -> None:
        """See that there is a queue for them. Blocks."""
        self._asker(lambda: self._topology.letters(self._asker.connection(), queue))

    def look(self, queue: str) -> list[tuple[DeadMessage, Received]]:
        """Return the oldest, the newest of them first. Blocks."""

        def read() -> list[Received]:
            channel, found = self._read(self._asker.connection(), queue, PAGE)
            if channel is not None:
                channel.close()
            return found

        return list(reversed(_named(self._asker(read))))

    def _read(
        self, connection: AmqpConnection, queue: str, most: int
    ) -> tuple[AmqpChannel | None, list[Received]]:
        """Take up to so many from the head, and a channel to end them by; else they go back."""
        found: list[Received] = []
        channel, name = connection.channel(), dead(queue)
        try:
            count = min(channel.count(name)[0], most)
            if not count:
                channel.close()
                return None, found
            consumer = channel.consume(name, count, found.append)
            last, until = 0, time.monotonic() + SILENCE
            while len(found) < count and time.monotonic() < until:
                connection.wait(until - time.monotonic())
                if len(found) > last:
                    last, until = len(found), time.monotonic() + SILENCE
            channel.cancel(consumer)
        except ChannelClosed as error:
            if error.code == 404:
                return None, []
            raise Unavailable(f"the dead letters of {queue!r} cannot be read: {error}") from error
        return channel, found

    def bury(self, queue: str, letters: Sequence[Publishing]) -> None:
        """Keep those that are not there yet. Blocks."""
        self.need(queue)
        there = {(m.message_id, m.body) for _, m in self.look(queue)}
        fresh: dict[tuple[str, bytes], Publishing] = {}
        for letter in letters:
            key = (letter.properties["message_id"], letter.body)
            if key not in there:
                fresh.setdefault(key, letter)
        self._store(list(fresh.values()))

    def _store(self, items: Sequence[Publishing]) -> None:
        if items:
            told = self._publisher(items)
            if told.missing:
                self._topology.forget()
            check_stored(told, items, "messages")

    def replay(self, queue: str, ids: Collection[str] | None, again: Again) -> int:
        """Put those of the ids, or all that are there now, back in line. Blocks."""
        if ids is not None:
            return self._replay_page(queue, PAGE, set(ids), again)[0]
        left = self._asker(lambda: self._count(queue))
        done = 0
        while left > 0:
            count, seen = self._replay_page(queue, min(left, PAGE), None, again)
            if not seen:
                break
            done, left = done + count, left - seen
        return done

    def _count(self, queue: str) -> int:
        channel = self._asker.connection().channel()
        try:
            return channel.count(dead(queue))[0]
        except ChannelClosed as error:
            if error.code == 404:
                return 0
            raise Unavailable(str(error)) from error
        finally:
            channel.close()

    def _replay_page(
        self, queue: str, most: int, ids: set[str] | None, again: Again
    ) -> tuple[int, int]:
        """Return how many were replayed, and how many were looked at."""
        channel, found = self._asker(lambda: self._read(self._asker.connection(), queue, most))
        if channel is None:
            return 0, 0
        try:
            wanted = [m for letter, m in _named(found) if ids is None or letter.id in ids]
            self._store([_alive(channel, queue, m, again) for m in wanted])
            self._asker(lambda: _end(channel, [m.tag for m in wanted], dead(queue)))
        finally:
            self._asker(channel.close)
        return len(wanted), len(found)


def _end(channel: AmqpChannel, tags: Sequence[int], queue: str) -> None:
    for tag in tags:
        channel.ack(tag)
    channel.count(queue)


def _named(found: Sequence[Received]) -> list[tuple[DeadMessage, Received]]:
    """Return letters as they are shown: of equal names all but the first get another one."""
    named: dict[str, tuple[DeadMessage, Received]] = {}
    for message in found:
        name = message.message_id or f"{message.tag}"
        while name in named:
            name += "_"
        named[name] = (letter_of(message, name), message)
    return list(named.values())


def _alive(channel: AmqpChannel, queue: str, message: Received, again: Again) -> Publishing:
    told = changed(channel.properties_of(message), message.message_id or new_id(), None, 0)
    known = {name: text for name, text in told["headers"].items() if type(text) is str}
    return Publishing(queue, again(message.body, known or None), told)
