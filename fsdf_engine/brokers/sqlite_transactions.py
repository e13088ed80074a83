"""Transactions of SQLAlchemy's users on a SQLite file, with messages in them.

A session tells when its transaction has ended, and those who wait are rung. Of a connection alone
nobody learns it: who waits looks, at least every five seconds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import LargeBinary, bindparam, event, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction

from ..contracts import Outgoing
from ..errors import Unavailable
from .sql_transactions import CallersTransactions, session_of
from .sqlite_file import SqliteFile
from .sqlite_rows import message

__all__ = ["SqliteTransactions"]

_COLUMNS = ("queue", "id", "body", "priority", "due", "headers", "published")
_INSERT = text(f"""
INSERT INTO message (seq, {", ".join(_COLUMNS)})
VALUES (CASE WHEN :first THEN (SELECT min(seq) - 1 FROM message) END,
    {", ".join(":" + name for name in _COLUMNS)})
""").bindparams(bindparam("body", type_=LargeBinary))


class SqliteTransactions(CallersTransactions):
    """Of the users of one file."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file.path, "sqlite")
        self._file, self._prepared = file, False
        self._key = "fsdf", file.path  # of what a session has to ring for

    def publish(self, transaction: object, batch: Sequence[Outgoing]) -> None:
        super().publish(transaction, batch)
        if session := session_of(transaction):
            if (counts := session.info.get(self._key)) is None:
                counts = session.info[self._key] = Counter()
                event.listen(session, "after_transaction_end", self._ring)
            counts.update(item.queue for item in batch)

    def _ring(self, session: Session, ended: SessionTransaction) -> None:
        """Wake those whom a session's messages concern; after a rollback they find nothing."""
        if ended.parent is None:  # else it was a savepoint's
            counts = dict(session.info[self._key])
            session.info[self._key].clear()
            for queue, count in counts.items():
                self._file.wakeups.ring(queue, count)

    def prepare(self) -> None:
        if self._prepared:
            return
        try:
            with self._file.read():
                self._prepared = True
        except Unavailable as error:
            raise Unavailable(
                f"the tables of the queue are not in {self._file.path}, and cannot be made while a"
                f" transaction writes there ({error}): make them before, as by task.size()"
            ) from error

    def forget(self) -> None:
        self._prepared = False

    def is_here(self, connection: Connection) -> bool:
        rows = connection.exec_driver_sql("PRAGMA database_list").all()
        with contextlib.suppress(OSError):
            return any(
                row[1] == "main" and os.path.samefile(row[2], self._file.path) for row in rows
            )
        return False  # it is in memory, or was removed

    def autocommits(self, connection: Connection) -> bool:
        raw = connection.connection.driver_connection
        begins = getattr(raw, "isolation_level", None) is not None  # before the first that writes
        return not (begins or getattr(raw, "in_transaction", True))

    def store(self, connection: Connection, batch: Sequence[Outgoing]) -> None:
        now = time.time()
        for item in batch:
            row = message(item, now)
            values = dict(zip(_COLUMNS, row))
            connection.execute(_INSERT, values | {"first": bool(item.not_before and not row[4])})
