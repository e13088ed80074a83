"""Transactions of SQLAlchemy's users on PostgreSQL, MariaDB and MySQL, with messages in them.

Whoever waits is notified at the commit, where the server notifies; all others look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Double, Integer, LargeBinary, Text, TextClause, bindparam, text
from sqlalchemy.engine import URL, Connection, TwoPhaseTransaction, make_url

from ..contracts import Outgoing
from ..errors import PublishError
from .sql_database import SqlDatabase
from .sql_postgresql import channel_of
from .sql_rows import MessageRow, message_row
from .sql_schema import Naming
from .sql_session import Session
from .sql_steps import Steps
from .sql_transactions import CallersTransactions
from .sql_waiting import rings_of

__all__ = ["SqlTransactions"]

_ROOM = 100_000  # bytes of a statement that are not bodies
# What only one database has. PostgreSQL: its name, and when its server began; MySQL: the server.
_POSTGRESQL = (
    "SELECT current_database(),"
    " CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint)"
)
_MYSQL = "SELECT @@hostname, @@port, @@datadir, @@server_id"
# Where the tables are: whoever stores may have another path to search.
_SCHEMA = """
SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%(table)s)
"""
_INSERT = """
INSERT INTO @message (queue, id, body, priority, due, spot, headers, published)
VALUES (:queue, :id, :body, :priority, {due}, {spot}, :headers, @@now)
"""
_FIRST = "CASE WHEN @@now < :instant THEN 0 ELSE CAST(@@now * -1000000 AS {integer}) END"
# As `sql_postgresql` does, but that rows stay: what this transaction has deleted or locked, those
# who wait could not leave before its end, and nobody else would ring them.
_RING = """
SELECT pg_notify(:channel, CAST(token AS text)) FROM (
    SELECT token FROM @waiter AS w WHERE queue = :queue
    AND until > greatest(@@now, :due, CASE WHEN :delay > 0 THEN @@now + :delay END)
    AND EXISTS (SELECT 1 FROM pg_stat_get_activity(w.pid))
    ORDER BY random() LIMIT :most) AS rung
"""


class _Facts(NamedTuple):
    """The queue's database, as it is now."""

    identity: tuple[str, ...]
    largest: int  # bytes of a body
    now: TextClause  # statements that store what is due now, after a delay, at an instant
    later: TextClause
    at: TextClause
    ring: TextClause | None


class SqlTransactions(CallersTransactions):
    """Of the users of one database."""

    def __init__(self, url: str, database: SqlDatabase, steps: Steps) -> None:
        dialects = ("postgresql",) if database.is_postgresql else ("mysql", "mariadb")
        super().__init__(database.place.shown, *dialects)
        self._url, self._database, self._steps = make_url(url), database, steps
        self._facts: _Facts | None = None

    def prepare(self) -> None:
        self._found()

    def forget(self) -> None:
        self._facts = None

    def _found(self) -> _Facts:
        if (facts := self._facts) is None:
            facts = self._facts = self._database.run(self._look)
        return facts

    def _look(self, session: Session) -> _Facts:
        database = self._database
        session.rows(database.sql("SELECT 1 FROM @message LIMIT 0"))  # else they are made now
        if database.is_postgresql:
            [identity] = session.rows(_POSTGRESQL)
            [(schema,)] = session.rows(_SCHEMA, {"table": database.sql("@message")})
        else:
            [identity] = session.rows(_MYSQL)
            [(schema,)] = session.rows("SELECT database()")
        naming = Naming(replace(database.place, schema=str(schema).replace(":", r"\:")))

        def sql(template: str) -> str:
            return naming(template.replace("@@now", database.now))

        integer = "bigint" if database.is_postgresql else "signed"
        first = _FIRST.format(integer=integer)
        at = "CASE WHEN @@now < :instant THEN :instant ELSE 0 END"
        return _Facts(
            tuple(map(str, identity)),
            session.largest - _ROOM,
            self._typed(sql(_INSERT.format(due="0", spot="0"))),
            self._typed(sql(_INSERT.format(due="@@now + :delay", spot="0")), "delay"),
            self._typed(sql(_INSERT.format(due=at, spot=first)), "instant"),
            _typed_ring(sql(_RING)) if self._steps.notifies else None,
        )

    def _typed(self, sql: str, *numbers: str) -> TextClause:
        """Return a statement that drivers of all kinds are told the types of."""
        key = Text if self._database.is_postgresql else LargeBinary
        return text(sql).bindparams(
            bindparam("queue", type_=key), bindparam("id", type_=Text),
            bindparam("body", type_=LargeBinary), bindparam("priority", type_=Integer),
            bindparam("headers", type_=Text),
            *(bindparam(name, type_=Double) for name in numbers),
        )  # fmt: skip

    def is_here(self, connection: Connection) -> bool:
        if _ends(connection.engine.url) == (here := _ends(self._url)) and all(here):
            return True
        asked = text(_POSTGRESQL if self._database.is_postgresql else _MYSQL)
        theirs = tuple(map(str, connection.execute(asked).one()))
        if theirs != self._found().identity:
            self.forget()  # the server may have begun anew
        return theirs == self._found().identity

    def autocommits(self, connection: Connection) -> bool:
        raw = connection.connection.dbapi_connection
        asked = getattr(raw, "get_autocommit", None)  # of most that speak to MySQL
        return bool(asked() if asked else getattr(raw, "autocommit", False))

    def store(self, connection: Connection, batch: Sequence[Outgoing]) -> None:
        facts = self._found()
        if large := [item for item in batch if len(item.body) > facts.largest]:
            raise PublishError(large)
        for item in batch:
            connection.execute(*self._insert(facts, message_row(item)))
        # What is prepared must not notify.
        if facts.ring is not None and not isinstance(
            connection.get_transaction(), TwoPhaseTransaction
        ):
            for queue, most, delay, instant in rings_of(batch):
                values = {"channel": channel_of(queue), "queue": queue, "most": most,
                          "due": instant, "delay": 0.0 if instant else delay}  # fmt: skip
                connection.execute(facts.ring, values).all()

    def _insert(self, facts: _Facts, row: MessageRow) -> tuple[TextClause, dict[str, Any]]:
        values = {name: getattr(row, name) for name in ("id", "body", "priority", "headers")}
        values["queue"] = self._steps.key(row.queue)
        if row.delay:
            return facts.later, values | {"delay": row.delay}
        if row.not_before:
            return facts.at, values | {"instant": row.not_before}
        return facts.now, values


def _typed_ring(sql: str) -> TextClause:
    return text(sql).bindparams(
        bindparam("channel", type_=Text), bindparam("queue", type_=Text),
        bindparam("most", type_=Integer), bindparam("due", type_=Double),
        bindparam("delay", type_=Double),
    )  # fmt: skip


def _ends(url: URL) -> tuple[str | None, int, str | None]:
    """Return what two URLs of one database have in common."""
    port = 5432 if url.get_backend_name() == "postgresql" else 3306
    host = None if "host" in url.query else url.host
    return host, url.port or port, url.database
