"""Transactions of SQLAlchemy's users, with messages in them: what all SQL databases share.

The connection is the caller's, and so are its driver, its user and its settings. Whether it leads
to the queue's own database is looked at once for each engine.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from weakref import WeakSet

from ..contracts import Outgoing, Transactions
from ..errors import ArgumentError, ConfigurationError, MissingExtra
from ..offload import Offload
from ..spelling import masked

try:
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.exc import SQLAlchemyError, UnboundExecutionError
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session
except ImportError as error:
    raise MissingExtra(
        'a message joins transactions of SQLAlchemy only: pip install "fsdf[sql]"'
    ) from error

__all__ = ["CallersTransactions", "session_of"]


class CallersTransactions(Transactions):
    """What all databases have in common. Any thread."""

    def __init__(self, shown: str, *dialects: str) -> None:
        """Take the queue's database, fit to be shown, and SQLAlchemy's names of its product."""
        self._shown, self._dialects = shown, dialects
        self._known: WeakSet[Dialect] = WeakSet()  # of engines that lead there
        self._offload = Offload()

    @abstractmethod
    def prepare(self) -> None:
        """See that the tables are there, on a connection of our own. Blocks at first.

        Raises:
            Unavailable, ServerRefused: they are not.
        """

    @abstractmethod
    def forget(self) -> None:
        """Prepare anew next time."""

    @abstractmethod
    def is_here(self, connection: Connection) -> bool:
        """Say whether a connection leads to the queue's database. Blocks."""

    @abstractmethod
    def autocommits(self, connection: Connection) -> bool:
        """Say whether a connection, which has begun, ends each statement's transaction with it."""

    @abstractmethod
    def store(self, connection: Connection, batch: Sequence[Outgoing]) -> None:
        """Store messages by a connection that leads here. Blocks."""

    def publish(self, transaction: object, batch: Sequence[Outgoing]) -> None:
        connection = _connection_of(transaction)
        self._offload(self.prepare)  # what is our own waits natively
        self._check(connection)
        try:
            self.store(connection, batch)
        except SQLAlchemyError:  # perhaps somebody has dropped the tables
            self.forget()
            raise

    async def apublish(self, transaction: object, batch: Sequence[Outgoing]) -> None:
        if isinstance(transaction, async_scoped_session):
            transaction = transaction()
        if not isinstance(transaction, (AsyncSession, AsyncConnection)):
            raise ArgumentError(
                f"{_named(transaction)} is no transaction that is awaited: give an AsyncSession or"
                " an AsyncConnection of SQLAlchemy, or call the method without the first `a`"
            )
        await asyncio.get_running_loop().run_in_executor(None, self.prepare)
        await transaction.run_sync(self.publish, batch)

    def _check(self, connection: Connection) -> None:
        if connection.dialect.name not in self._dialects:
            raise self._elsewhere(connection)
        if not connection.in_transaction():
            connection.begin()  # as its first statement would
        if self.autocommits(connection):
            raise ConfigurationError(
                f"the connection to {_place(connection)} commits every statement by itself, so that"
                " nothing could be rolled back: use one without isolation_level='AUTOCOMMIT', or"
                " push without a transaction"
            )
        if connection.dialect not in self._known:
            if not self.is_here(connection):
                raise self._elsewhere(connection)
            self._known.add(connection.dialect)

    def _elsewhere(self, connection: Connection) -> ConfigurationError:
        return ConfigurationError(
            f"the transaction is one of {_place(connection)}, and the queue is in {self._shown}:"
            " one transaction cannot have both; give one of the queue's database, or let the"
            " task's broker_url name the other one"
        )


def session_of(given: object) -> Session | None:
    """Return the session that a transaction is of; None: of a connection alone."""
    if isinstance(given, scoped_session):
        return given()  # type: ignore[no-any-return]
    return given if isinstance(given, Session) else None


def _connection_of(given: object) -> Connection:
    """Return the connection of a transaction."""
    if isinstance(given, Connection):
        return given
    if session := session_of(given):
        try:
            return session.connection()
        except UnboundExecutionError as error:
            raise ConfigurationError(
                "the session is bound to no database, or to several; give the connection to the"
                " queue's, session.connection(bind_arguments=...)"
            ) from error
    if isinstance(given, (AsyncSession, AsyncConnection, async_scoped_session)):
        raise ArgumentError(
            f"{_named(given)} has to be awaited: `await task.apush_in(...)`, or `apublish_in`"
        )
    raise ArgumentError(
        f"{_named(given)} is no transaction: give a Session or a Connection of SQLAlchemy"
    )


def _named(given: object) -> str:
    cls = type(given)
    return f"a value of type {cls.__module__}.{cls.__qualname__}"


def _place(connection: Connection) -> str:
    return masked(connection.engine.url.set(query={}).render_as_string(hide_password=False))
