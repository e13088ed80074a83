"""The contract of brokers whose queues can be part of transactions of their users.

Import from `fsdf_engine.contracts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from .messaging import Outgoing

__all__ = ["Transactions"]


class Transactions(ABC):
    """How messages are stored in transactions of others (`Broker.transactions`).

    A transaction is what the client library gives its users for one: a connection or a session. It
    stays theirs: nothing here begins another one, commits it or rolls it back, and what it raises
    comes as it is, so that whoever repeats it on such errors goes on doing so.
    """

    @abstractmethod
    def publish(self, transaction: object, batch: Sequence[Outgoing]) -> None:
        """Store messages in a transaction. They are there for all others once it is committed.

        Called by the thread that has the transaction. Blocks.

        Raises:
            ArgumentError: that is no transaction of this broker's client library.
            ConfigurationError: it is one of another place, or commits each statement by itself.
            PublishError: naming those that are too large; nothing was stored.
            Unavailable, ServerRefused: the queue's tables could not be made.
        """

    @abstractmethod
    async def apublish(self, transaction: object, batch: Sequence[Outgoing]) -> None:
        """As `publish`, in a transaction of the client library's asyncio."""
