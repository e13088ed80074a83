"""Turns at a SQLite file: one connection to write, one to read, each for one caller at a time."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from .fair_lock import FairLock, Held
from .sqlite_errors import harmless
from .sqlite_rows import READABLE

if TYPE_CHECKING:
    from .sqlite_file import SqliteFile

__all__ = ["Connection", "Turn"]


class Connection(sqlite3.Connection):
    """A connection that knows which file it was opened to."""

    identity: tuple[int, int] | None = None
    seen_at = 0.0  # when it was that file (`time.monotonic`)


class Turn:
    """Holds a connection, in a transaction if it is to write; commits or rolls back."""

    __slots__ = ("_begins", "_file", "_held", "_lock", "_writes")

    def __init__(
        self, file: SqliteFile, lock: FairLock[Any], writes: bool, begins: bool = False
    ) -> None:
        self._file, self._lock, self._writes, self._begins = file, lock, writes, begins
        self._held: Held[Any] | None = None

    def __enter__(self) -> sqlite3.Connection:
        try:
            held = self._held = self._lock.take(self._file.patience)
        except TimeoutError:
            raise self._file.locked() from None
        try:
            db: Connection | None = held.thing
            if db is None or not self._file.has(db):
                held.thing = None  # first: it may not come to another one
                db = held.thing = self._file.connect(db)
                if not self._writes:
                    db.text_factory = READABLE
            if self._writes:
                self._file.queue_up()
                if self._begins:
                    db.execute("BEGIN IMMEDIATE")
            return db
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: object) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Commit or roll back, give the connection back, raise what SQLite said as our error."""
        held, self._held = self._held, None
        if held is None:
            return
        db = held.thing
        try:
            if db is not None and db.in_transaction:
                db.execute("ROLLBACK" if error else "COMMIT")
        except sqlite3.Error as second:
            error = error or second
            self._file.roll_back(db)
        if isinstance(error, sqlite3.Error) and not harmless(error) and db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
            held.thing = None
        if self._writes:
            self._file.step_aside()
            if error is None:
                self._file.free_at = time.monotonic()
        self._lock.give(held)
        if isinstance(error, sqlite3.Error):
            raise self._file.translated(error) from error
