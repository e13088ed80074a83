"""One SQLite file as brokers and stores use it: connections, transactions, schema, errors, shrink.

Writers of one process queue for one connection, so that only processes contend for the file's
lock, and readers share another. Both are free of thread identities: any thread of any kind may
take its turn. Connections are closed while the process forks, because SQLite's own bookkeeping of
locks must not be inherited.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import orjson

from ..errors import ConfigurationError, FsdfError, ServerRefused, Unavailable
from ..spelling import masked
from .fair_lock import FairLock, Held
from .owned import check_place, identity
from .process_lock import ProcessLock, exclusive
from .sqlite_errors import locked, translated, translating
from .sqlite_rows import ODD
from .sqlite_schema import EXPIRE, EXPIRING, STAGE, VERSION, stage_of, upgrade
from .sqlite_turn import Connection, Turn
from .wakeup import WakeUps

__all__ = ["PATIENCE", "SqliteFile", "path_of", "span"]

log = logging.getLogger("fsdf.sqlite")
PATIENCE = 10.0  # seconds to wait for another process's transaction
GLANCE = 0.05  # seconds; what is stored so shortly after a file is removed goes with it
SWEEP = 60.0  # seconds between two looks for what has expired
OLDEST = (3, 35)  # RETURNING, and json_each built in
# What a transaction moves between WAL and database at a time, and what the log may leave behind.
# The indices find what no instant says when to run, and a message's dead letters; files of earlier
# versions have none.
_SETTINGS = """
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA journal_size_limit = 16777216;
CREATE INDEX IF NOT EXISTS message_odd ON message (queue) WHERE %s;
CREATE INDEX IF NOT EXISTS dead_id ON dead (queue, id);
"""


def path_of(url: str) -> str:
    """Return the absolute path meant by a path or a `sqlite:///path`.

    Raises:
        ConfigurationError: it names no file.
    """
    path = url
    if url.startswith("sqlite:"):
        path = url.partition("//")[2][1:]
    elif "://" in url:
        raise ConfigurationError(f"{masked(url)!r} is no path of a SQLite file; give a path")
    if not path or path == ":memory:":
        raise ConfigurationError(f"{url!r} names no file; set SQLITE_PATH to a path")
    return os.path.abspath(os.path.expanduser(path))


def span(seqs: Sequence[int]) -> tuple[str, tuple[Any, ...]]:
    """Return a condition on `seq`, and its values, for a set of row numbers.

    Rows of one fetch are mostly neighbours, and a range is three times as fast as a list.
    """
    low, high = min(seqs), max(seqs)
    if high - low + 1 == len(seqs):
        return "seq BETWEEN ? AND ?", (low, high)
    return "seq IN (SELECT value FROM json_each(?))", (orjson.dumps(seqs).decode(),)


class SqliteFile:
    """One database file; opens nothing until used. Any thread."""

    # SQLite has one writer: a broker and a store of one file take turns without knowing each other.
    _shared: ClassVar[weakref.WeakValueDictionary[tuple[str, float], SqliteFile]] = (
        weakref.WeakValueDictionary()
    )

    @classmethod
    def shared(cls, url: str, patience: float = PATIENCE) -> SqliteFile:
        """Return this process's object for the file."""
        key = (path_of(url), patience)
        if (found := cls._shared.get(key)) is None:
            found = cls._shared.setdefault(key, cls(url, patience))
        return found

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        self.path, self.patience = path_of(url), patience
        self._wakeups: WakeUps | None = None
        self._hooked, self._swept = False, time.monotonic()
        self._parted: object = None  # the identity of the file that was there before
        self._reset()

    def _reset(self) -> None:
        self._turns: list[tuple[FairLock[Any], Held[Any]]] = []  # held while the process forks
        self.free_at = 0.0  # when a writer of this process last had the file (`time.monotonic`)
        self._process_lock: ProcessLock | None = None
        self._pid = os.getpid()
        mend = weakref.WeakMethod(self._mend)
        self._writer: FairLock[Connection | None] = FairLock(
            None, lambda db: (found := mend()) and found(db)
        )
        self._reader: FairLock[Connection | None] = FairLock(None)

    def _mend(self, db: sqlite3.Connection | None) -> None:
        """End what an interrupt left open."""
        self.roll_back(db)
        self.step_aside()

    def roll_back(self, db: sqlite3.Connection | None) -> None:
        """Undo what is uncommitted; a connection that cannot is of no use but harms nothing."""
        with contextlib.suppress(sqlite3.Error):
            if db is not None and db.in_transaction:
                db.execute("ROLLBACK")

    def write(self) -> Turn:
        """Return a context: a connection in a transaction that commits at its end. Blocks.

        Raises:
            Unavailable: the file is locked, the disk is full or failing; nothing was stored.
            ServerRefused: the file or its folder is not usable.
        """
        return Turn(self, self._writer, True, True)

    def write_once(self) -> Turn:
        """As `write`, for a single statement that writes: a transaction by itself, and quicker."""
        return Turn(self, self._writer, True)

    def read(self) -> Turn:
        """Return a context: a connection to read from. Raises as `write`."""
        return Turn(self, self._reader, False)

    @property
    def wakeups(self) -> WakeUps:
        """The wake-ups beside the file."""
        if self._wakeups is None:
            with self.translating():
                self._create()
                self._wakeups = WakeUps(self.path)
        return self._wakeups

    def has(self, db: Connection) -> bool:
        """Say whether the connection's file is still the one at our path, or was just now."""
        now = time.monotonic()
        if now - db.seen_at > GLANCE:
            if identity(self.path) != db.identity:
                return False
            db.seen_at = now
        return True

    def connect(self, before: Connection | None = None) -> Connection:
        """Open a connection, making the file if need be; `before` is one to a file that is gone."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise ServerRefused(
                f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or later is needed: use a"
                " Python that brings it"
            )
        if before is not None:
            self._part(before)
        with self.translating():
            self._create()
        wakeups = self.wakeups
        self._hook()
        db = sqlite3.connect(
            self.path, self.patience, isolation_level=None, check_same_thread=False,
            factory=Connection,
        )  # fmt: skip
        db.identity = identity(self.path)
        try:
            if self._format(db) < (VERSION, STAGE):
                with exclusive(os.path.join(wakeups.folder, "lock")):
                    if (found := self._format(db)) < (VERSION, STAGE):
                        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                        db.execute("PRAGMA journal_mode = WAL")
                        db.executescript(upgrade(*found))
            db.executescript(_SETTINGS % ODD)
        except BaseException:
            db.close()
            raise
        return db

    def _part(self, db: Connection) -> None:
        """Leave a file that was removed or replaced: what is written there, nobody reads."""
        if self._parted != db.identity:
            self._parted = db.identity
            log.warning("%s was removed or replaced: what it held is gone, and a new one is used",
                        self.path)  # fmt: skip
        with contextlib.suppress(sqlite3.Error):
            db.close()
        if self._wakeups is not None and not self._wakeups.lasts():
            self._wakeups = self._process_lock = None

    def queue_up(self) -> None:
        """Block until it is this process's turn to write.

        SQLite alone would have us sleep and try again, up to 0.1 s at a time, while whoever writes
        much takes the lock each time we look; the kernel wakes us as soon as it is free.
        """
        if (process_lock := self._process_lock) is None:
            with self.translating():
                process_lock = self._process_lock = ProcessLock(
                    os.path.join(self.wakeups.folder, "turn")
                )
        try:
            process_lock.take(self.patience)
        except TimeoutError:
            raise self.locked() from None

    def step_aside(self) -> None:
        """Let the next process write."""
        if (process_lock := self._process_lock) is not None:
            process_lock.leave()

    def _format(self, db: sqlite3.Connection) -> tuple[int, int]:
        [found] = db.execute("PRAGMA user_version").fetchone()
        [stage] = db.execute("PRAGMA application_id").fetchone()
        if found > VERSION:
            raise ServerRefused(
                f"{self.path} has the format {found} of a newer fsdf or of another program, and"
                f" this version knows {VERSION}: upgrade fsdf, or set SQLITE_PATH to another file"
            )
        return found, stage_of(stage)

    def _create(self) -> None:
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        check_place(self.path)
        # Never one that is there: to close it would end the locks of our other connections.
        with contextlib.suppress(FileExistsError):
            path = os.path.realpath(self.path)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _hook(self) -> None:
        """Arrange that a fork finds no connection open."""
        if self._hooked or not hasattr(os, "register_at_fork"):
            return
        self._hooked = True
        mine = weakref.ref(self)

        def before() -> None:
            if (file := mine()) is not None and file._pid == os.getpid():
                file._turns = file._suspended()

        def in_parent() -> None:
            if (file := mine()) is not None:
                file._resume()

        def in_child() -> None:
            if (file := mine()) is not None:
                file._reset()

        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)

    def _suspended(self) -> list[tuple[FairLock[Any], Held[Any]]]:
        """Take all turns and close the connections; no thread is inside of SQLite then."""
        turns: list[tuple[FairLock[Any], Held[Any]]] = []
        for lock in (self._writer, self._reader):
            with contextlib.suppress(TimeoutError, sqlite3.Error):
                turns.append((lock, held := lock.take(self.patience)))
                db, held.thing = held.thing, None
                if lock is self._writer:
                    self._process_lock = None
                if db is not None:
                    db.close()
        return turns

    def _resume(self) -> None:
        turns, self._turns = self._turns, []
        for lock, held in turns:
            lock.give(held)

    def close(self) -> None:
        """Free the connections. Idempotent; a later call opens them again.

        The wake-ups are freed with their last user: an inbox may still wait there.
        """
        for lock, held in self._suspended():
            lock.give(held)
        self._wakeups = None

    def shrink(self, pages: int = 1000, *, sweep: bool = False) -> bool:
        """Give the file system up to `pages` free pages, if much is free; True: there is more.

        Every minute, or with `sweep`, what has expired goes first. Takes a few milliseconds; for
        idle moments.
        """
        with self.read() as db:
            sweep = sweep or time.monotonic() >= self._swept + SWEEP
            sql, now = "SELECT 1 FROM {} WHERE expires <= ? LIMIT 1", (time.time(),)
            tables = EXPIRING if sweep else ()
            ended = [t for t in tables if db.execute(sql.format(t), now).fetchone()]
            [free] = db.execute("PRAGMA freelist_count").fetchone()
            [all_] = db.execute("PRAGMA page_count").fetchone()
        if ended:
            with self.write() as db:
                for table in ended:
                    db.execute(EXPIRE.format(table), (*now, pages))
            return True
        if sweep:
            self._swept = time.monotonic()
        if free < 256 or free * 2 < all_:
            return False
        with self.write() as db:
            # A statement of its own: `execute` would end it after the first page.
            db.executescript(f"PRAGMA incremental_vacuum({pages:d})")
        if free - pages >= 256:
            return True
        with self.read() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return False

    def translating(self) -> AbstractContextManager[None]:
        """Raise what the file system says as one of our errors."""
        return translating(self.path)

    def locked(self) -> Unavailable:
        """Return the error for a lock that another one holds for too long."""
        return locked(self.path, self.patience)

    def translated(self, error: sqlite3.Error) -> FsdfError:
        """Return one of our errors for one of SQLite's; a plain BrokerError blames a value."""
        return translated(error, self.path, self.patience)
