"""A database as brokers and stores use it: connections, repeats, errors, forks.

Connections are made when calls need them at the same time, and a few are kept. A call that meets a
deadlock, or a conflict of transactions, is made again as a whole; a connection that is lost is
told as what it means. After a fork the child leaves the parent's connections alone.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from ..errors import BrokerError, FsdfError
from ..green import native_lock
from .sql_errors import Blame, blame_of, translated
from .sql_place import Place, place_of
from .sql_rows import clean
from .sql_schema import Naming, ensure
from .sql_session import Session, session_to

__all__ = ["SqlDatabase"]

T = TypeVar("T")
REPEATS = 100  # of one call that meets deadlocks
_inherited: list[list[Session]] = []  # of parents: to close them would end the parents' own


class SqlDatabase:
    """One database; opens nothing until used. Any thread."""

    _shared: ClassVar[weakref.WeakValueDictionary[str, SqlDatabase]] = weakref.WeakValueDictionary()

    @classmethod
    def shared(cls, url: str) -> SqlDatabase:
        """Return this process's object for the database."""
        if (found := cls._shared.get(url)) is None:
            found = cls._shared.setdefault(url, cls(url))
        return found

    def __init__(self, url: str) -> None:
        self.place: Place = place_of(url)
        self.naming = Naming(self.place)
        self.is_postgresql = self.place.product == "postgresql"
        self.now = _NOW[self.place.product]
        self._renew()

    def _renew(self) -> None:
        self._pid, self._lock = os.getpid(), native_lock()
        self._idle: list[Session] = []
        self._ensured = False

    def sql(self, text: str) -> str:
        """Return a statement as the server takes it: `@table`, and `@@now` its time, Unix seconds.

        On MySQL the time is that of the statement's begin.
        """
        return self.naming(text.replace("@@now", self.now))

    def key(self, text: str) -> Any:
        """Return what a text is found by in a column of keys: itself, unless it is long."""
        kept = clean(text)
        if len(kept.encode()) > 200:
            digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=32)
            kept = f"#{digest.hexdigest()}"
        return kept if self.is_postgresql else kept.encode()

    def text(self, key: Any) -> str:
        """Return what a column of keys holds."""
        return key if isinstance(key, str) else bytes(key).decode(errors="replace")

    def ignoring(self, insert: str) -> str:
        """Return an INSERT, as the server takes it, that leaves what is there."""
        if self.is_postgresql:
            return self.sql(insert + " ON CONFLICT DO NOTHING")
        return self.sql(insert.replace("INSERT INTO", "INSERT IGNORE INTO", 1))

    def run(self, work: Callable[[Session], T]) -> T:
        """Return `work(session)`; `work` is called again after a deadlock. Blocks.

        Raises:
            Unavailable: nothing has been done. `Unanswered`: perhaps it has.
            ServerRefused: the server refuses us, or it has other tables.
            BrokerError: it does not take a value.
        """
        mended = False
        for attempt in range(REPEATS):
            session = self._take()
            try:
                value = work(session)
            except BaseException as error:
                blame = self._part(session, error)
                if blame is Blame.NOBODY and attempt < REPEATS - 1:
                    continue
                if blame is Blame.TABLE and not mended:  # perhaps somebody has dropped them
                    self.close()
                    self._ensured, mended = False, True
                    continue
                if blame is None:
                    raise
                raise translated(error, blame, self.place.shown, session.sent) from error
            self._give(session)
            return value
        raise BrokerError("unreachable")

    def rows(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return what one statement gives. Raises as `run`."""
        return self.run(lambda session: session.rows(sql, values))

    def _take(self) -> Session:
        if self._pid != os.getpid():
            _inherited.append(self._idle)
            self._renew()
        while True:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            if session is None:
                session = self.connect()
            elif session.is_over():
                session.close()
                continue
            session.sent = True
            return session

    def connect(self) -> Session:
        """Open another connection, which belongs to the caller. Raises as `run`."""
        for attempt in range(REPEATS):
            session = None
            try:
                session = session_to(self.place)
                if not self._ensured:
                    ensure(session, self.place)
                    self._ensured = True
                return session
            except BaseException as error:
                if session is not None:
                    session.close()
                blame = None if isinstance(error, FsdfError) else blame_of(error)
                if blame is Blame.NOBODY and attempt < REPEATS - 1:
                    continue
                if blame is None:
                    raise
                raise translated(error, blame, self.place.shown, False) from error
        raise BrokerError("unreachable")

    def connect_to_listen(self) -> Session:
        """Open the connection at which notifications arrive. Raises as the client, or as `run`."""
        return session_to(place_of(self.place.listen)) if self.place.listen else self.connect()

    def _give(self, session: Session) -> None:
        session.used_at = time.monotonic()
        with self._lock:
            kept = len(self._idle) < self.place.spare
            if kept:
                self._idle.append(session)
        if not kept:
            session.close()

    def _part(self, session: Session, error: BaseException) -> Blame | None:
        """Keep a connection that is whole, in no transaction; say who is to blame."""
        blame = blame_of(error)
        whole = isinstance(error, FsdfError) or blame not in (None, Blame.LOST, Blame.TABLE)
        if whole:
            try:
                session.rows("ROLLBACK")
            except Exception:  # then it is of no use; what is told is the first failure
                whole = False
        self._give(session) if whole else session.close()
        return blame

    def close(self) -> None:
        """Free every idle connection; the next call opens others. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


# Of the server's clock: not `now()`, which stands still in a transaction of PostgreSQL.
_NOW = {
    "postgresql": "extract(epoch FROM clock_timestamp())::float8",
    "mysql": "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) / 1000000e0)",
}
