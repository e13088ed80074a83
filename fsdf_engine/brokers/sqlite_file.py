"""One SQLite file as brokers and stores use it: connections, transactions, schema, errors, shrink.

Writers of one process queue for one connection, so that only processes contend for the file's
lock, and readers share another. Both are free of thread identities: any thread of any kind may
take its turn. Connections are closed while the process forks, because SQLite's own bookkeeping of
locks must not be inherited.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import orjson

from ..errors import ConfigurationError, FsdfError, ServerRefused, Unavailable
from .bell import Bell
from .gate import Gate, exclusive
from .line import Held, Line

__all__ = ["PATIENCE", "SqliteFile", "path_of", "span"]

PATIENCE = 10.0  # seconds to wait for another process's transaction
OLDEST = (3, 35)  # RETURNING, and json_each built in
VERSION = 1
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)
_BAD_VALUE = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
# What a transaction moves between WAL and database at a time, and what the log may leave behind.
_SETTINGS = """
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA journal_size_limit = 16777216;
"""
# message.due: 0 waiting, an instant: delayed until then, NULL: leased. What is leased is in neither
# index; `lease.seqs` finds it. `left` counts the unsettled. The body comes last, so that the other
# columns are read without it.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS message (
    seq INTEGER PRIMARY KEY, due REAL DEFAULT 0, lease INTEGER, deliveries INTEGER DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0, published REAL DEFAULT 0, queue TEXT NOT NULL,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))), state TEXT, headers TEXT,
    body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS message_waiting ON message (queue, priority DESC, seq) WHERE due = 0;
CREATE INDEX IF NOT EXISTS message_delayed ON message (queue, due) WHERE due > 0;
CREATE TABLE IF NOT EXISTS lease (
    token INTEGER PRIMARY KEY, ends REAL NOT NULL, queue TEXT NOT NULL, count INTEGER NOT NULL,
    seqs TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS lease_ends ON lease (queue, ends);
CREATE TABLE IF NOT EXISTS dead (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, id TEXT NOT NULL,
    priority INTEGER, published REAL, headers TEXT, at REAL, reason TEXT, trace TEXT, body BLOB);
CREATE INDEX IF NOT EXISTS dead_queue ON dead (queue, seq);
CREATE TABLE IF NOT EXISTS result (
    id TEXT PRIMARY KEY, deliveries INTEGER NOT NULL, final INTEGER NOT NULL, expires REAL NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS result_expires ON result (expires);
CREATE TABLE IF NOT EXISTS watch (
    id TEXT, address TEXT, expires REAL NOT NULL, PRIMARY KEY (id, address));
CREATE INDEX IF NOT EXISTS watch_expires ON watch (expires);
PRAGMA user_version = %d;
COMMIT;
"""


def path_of(url: str) -> str:
    """Return the absolute path meant by a path or a `sqlite:///path`.

    Raises:
        ConfigurationError: it names no file.
    """
    path = url
    if url.startswith("sqlite:"):
        path = url.partition("//")[2][1:]
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


class _Turn:
    """Holds a connection, in a transaction if it is to write; commits or rolls back."""

    __slots__ = ("_begins", "_file", "_held", "_line", "_writes")

    def __init__(
        self, file: SqliteFile, line: Line[Any], writes: bool, begins: bool = False
    ) -> None:
        self._file, self._line, self._writes, self._begins = file, line, writes, begins
        self._held: Held[Any] | None = None

    def __enter__(self) -> sqlite3.Connection:
        try:
            held = self._held = self._line.take(self._file.patience)
        except TimeoutError:
            raise self._file.locked() from None
        try:
            db = held.thing = held.thing or self._file.connect()
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
        if isinstance(error, sqlite3.Error) and not _harmless(error) and db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
            held.thing = None
        if self._writes:
            self._file.step_aside()
        self._line.give(held)
        if isinstance(error, sqlite3.Error) and not isinstance(error, _BAD_VALUE):
            raise self._file.translated(error) from error


def _harmless(error: sqlite3.Error) -> bool:
    """Say whether the connection may be used on."""
    text = str(error)
    return "locked" in text or "full" in text or isinstance(error, _BAD_VALUE)


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
        self._bell: Bell | None = None
        self._hooked = False
        self._reset()

    def _reset(self) -> None:
        self._turns: list[tuple[Line[Any], Held[Any]]] = []  # held while the process forks
        self._gate: Gate | None = None
        self._pid = os.getpid()
        mend = weakref.WeakMethod(self._mend)
        self._writer: Line[sqlite3.Connection | None] = Line(
            None, lambda db: (found := mend()) and found(db)
        )
        self._reader: Line[sqlite3.Connection | None] = Line(None)

    def _mend(self, db: sqlite3.Connection | None) -> None:
        """End what an interrupt left open."""
        self.roll_back(db)
        self.step_aside()

    def roll_back(self, db: sqlite3.Connection | None) -> None:
        """Undo what is uncommitted; a connection that cannot is of no use but harms nothing."""
        with contextlib.suppress(sqlite3.Error):
            if db is not None and db.in_transaction:
                db.execute("ROLLBACK")

    def write(self) -> _Turn:
        """Return a context: a connection in a transaction that commits at its end. Blocks.

        Raises:
            Unavailable: the file is locked, the disk is full or failing; nothing was stored.
            ServerRefused: the file or its folder is not usable.
        """
        return _Turn(self, self._writer, True, True)

    def write_once(self) -> _Turn:
        """As `write`, for a single statement that writes: a transaction by itself, and quicker."""
        return _Turn(self, self._writer, True)

    def read(self) -> _Turn:
        """Return a context: a connection to read from. Raises as `write`."""
        return _Turn(self, self._reader, False)

    @property
    def bell(self) -> Bell:
        """The bell beside the file."""
        if self._bell is None:
            with self.translating():
                self._create()
                self._bell = Bell(self.path)
        return self._bell

    def connect(self) -> sqlite3.Connection:
        """Open a connection, making the file if need be."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise ServerRefused(
                f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or later is needed: use a"
                " Python that brings it"
            )
        bell = self.bell
        self._hook()
        db = sqlite3.connect(
            self.path, self.patience, isolation_level=None, check_same_thread=False
        )
        try:
            if self._version(db) < VERSION:
                with exclusive(os.path.join(bell.folder, "lock")):
                    if self._version(db) < VERSION:
                        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                        db.execute("PRAGMA journal_mode = WAL")
                        db.executescript(_SCHEMA % VERSION)
            db.executescript(_SETTINGS)
        except BaseException:
            db.close()
            raise
        return db

    def queue_up(self) -> None:
        """Block until it is this process's turn to write.

        SQLite alone would have us sleep and try again, up to 0.1 s at a time, while whoever writes
        much takes the lock each time we look; the kernel wakes us as soon as it is free.
        """
        if self._gate is None:
            with self.translating():
                self._gate = Gate(os.path.join(self.bell.folder, "turn"))
        try:
            self._gate.take(self.patience)
        except TimeoutError:
            raise self.locked() from None

    def step_aside(self) -> None:
        """Let the next process write."""
        if self._gate is not None:
            self._gate.leave()

    def _version(self, db: sqlite3.Connection) -> int:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise ServerRefused(
                f"{self.path} has the format {found} of a newer fsdf or of another program, and"
                f" this version knows {VERSION}: upgrade fsdf, or set SQLITE_PATH to another file"
            )
        return found

    def _create(self) -> None:
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))

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

    def _suspended(self) -> list[tuple[Line[Any], Held[Any]]]:
        """Take all turns and close the connections; no thread is inside of SQLite then."""
        turns: list[tuple[Line[Any], Held[Any]]] = []
        for line in (self._writer, self._reader):
            with contextlib.suppress(TimeoutError, sqlite3.Error):
                turns.append((line, held := line.take(self.patience)))
                db, held.thing = held.thing, None
                if line is self._writer:
                    self._gate = None
                if db is not None:
                    db.close()
        return turns

    def _resume(self) -> None:
        turns, self._turns = self._turns, []
        for line, held in turns:
            line.give(held)

    def close(self) -> None:
        """Free the connections. Idempotent; a later call opens them again.

        The bell is freed with its last user: an inbox may still wait there.
        """
        for line, held in self._suspended():
            line.give(held)
        self._bell = None

    def shrink(self, pages: int = 1000) -> bool:
        """Give the file system up to `pages` free pages, if much is free; True: there is more.

        Takes a few milliseconds; for idle moments.
        """
        with self.read() as db:
            [free] = db.execute("PRAGMA freelist_count").fetchone()
            [all_] = db.execute("PRAGMA page_count").fetchone()
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

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise what the file system says as one of our errors."""
        try:
            yield
        except FsdfError:
            raise
        except OSError as error:
            if error.errno in _PASSING:
                raise Unavailable(f"{self.path}: {error.strerror}; nothing was stored") from error
            raise self._unusable(str(error)) from error

    def locked(self) -> Unavailable:
        """Return the error for a lock that another one holds for too long."""
        return Unavailable(
            f"{self.path} has been locked by another program for {self.patience:g} s: look for one"
            " with an open transaction on it; nothing was stored"
        )

    def _unusable(self, why: str) -> ServerRefused:
        return ServerRefused(
            f"{self.path} cannot be used ({why}): make the file and its folder writable, or set"
            " SQLITE_PATH to another path"
        )

    def translated(self, error: sqlite3.Error) -> FsdfError:
        """Return one of our errors for one of SQLite's."""
        text = str(error)
        if "locked" in text:
            return self.locked()
        if "full" in text:
            return Unavailable(
                f"the disk of {self.path} is full: free some space; nothing was stored"
            )
        if "not a database" in text or "malformed" in text:
            return ServerRefused(
                f"{self.path} is not a sound SQLite database ({text}): restore it, or set"
                " SQLITE_PATH to another path"
            )
        if "readonly" in text or "unable to open" in text:
            return self._unusable(text)
        return Unavailable(f"{self.path}: {text}; nothing was stored")
