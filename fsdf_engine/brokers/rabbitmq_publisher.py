"""Publishing: what is published at the same time by several threads leaves together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..contracts import Outgoing
from ..errors import PublishError, Unavailable
from .amqp_client import AmqpChannel, AmqpConnection, Confirmed, Publishing
from .amqp_owner import Owner

__all__ = ["Publisher", "check_stored"]
PATIENCE = 30.0  # seconds until all is confirmed; heartbeats find out sooner that a server is gone
MOST = 2000  # messages that leave together


class _Batch:
    __slots__ = ("answer", "error", "items")

    def __init__(self, items: Sequence[Publishing]) -> None:
        self.items, self.answer = items, Confirmed()
        self.error: Exception | None = None


class Publisher:
    """A connection to publish by. Any thread."""

    def __init__(self, connect: Callable[[], AmqpConnection], name: str) -> None:
        self.owner = Owner(connect, name, lost=self._lost)
        self._waiting: deque[_Batch] = deque()
        self._channel: AmqpChannel | None = None

    def _lost(self) -> None:
        self._channel = None

    def __call__(self, items: Sequence[Publishing]) -> Confirmed:
        """Publish, and return what has become of it. Blocks.

        Raises:
            Unavailable, ServerRefused: nothing was sent.
        """
        batch = _Batch(items)
        self._waiting.append(batch)
        self.owner(self._flush)
        if batch.error is not None:
            raise batch.error
        return batch.answer

    def _flush(self) -> None:
        """Send all that waits, which is nothing when another call has sent it."""
        while self._waiting:
            batches = [self._waiting.popleft()]
            count = len(batches[0].items)
            while self._waiting and count + len(self._waiting[0].items) <= MOST:
                batches.append(self._waiting.popleft())
                count += len(batches[-1].items)
            try:
                told = self._send([item for batch in batches for item in batch.items])
            except Exception as error:  # before anything was sent
                for batch in batches:
                    batch.error = error
            else:
                _share(batches, told)

    def _send(self, items: Sequence[Publishing]) -> Confirmed:
        connection = self.owner.connection()
        if why := connection.blocked:
            raise Unavailable(f"RabbitMQ takes no messages now: {why}; they can be pushed later")
        if self._channel is None or not self._channel.is_open:
            self._channel = connection.channel()
        told = self._channel.publish(items, PATIENCE)
        if told.unknown:  # what comes late must not count for the next
            channel, self._channel = self._channel, None
            if not connection.blocked:
                channel.close()
        return told

    def close(self) -> None:
        """End the connection."""
        self.owner.close()


def check_stored(told: Confirmed, items: Sequence[Publishing], what: str) -> None:
    """Let an answer pass that says that all is stored.

    Raises:
        PublishError: names those that cannot be written.
        Unavailable: some may not be stored; perhaps some are.
    """
    if unfit := told.unfit:
        messages = [items[n] for n in unfit]
        raise PublishError(
            [Outgoing(m.routing_key, m.properties["message_id"], m.body) for m in messages]
        ) from next(iter(unfit.values()))
    if missing := told.missing:
        raise Unavailable(
            f"RabbitMQ has not stored {len(missing)} {what}: {told.error or 'it refused them'}"
        ) from told.error


def _share(batches: Sequence[_Batch], told: Confirmed) -> None:
    """Give each batch its part of an answer."""
    if not told.missing:
        for batch in batches:
            batch.answer = told
        return
    start = 0
    for batch in batches:
        end = start + len(batch.items)
        refused, returned, unknown = (
            [n - start for n in part if start <= n < end]
            for part in (told.refused, told.returned, told.unknown)
        )
        unfit = {n - start: why for n, why in told.unfit.items() if start <= n < end}
        batch.answer = Confirmed(refused, returned, unknown, told.error, unfit)
        start = end
