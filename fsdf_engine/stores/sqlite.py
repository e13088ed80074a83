"""Results in the SQLite file that also holds the queues.

A writer sends the final records to the inboxes that wait for them as datagrams, after its commit:
nothing is read back. Where one does not fit, it leaves a mark instead, upon which the inbox reads
what it still waits for.
"""

from __future__ import annotations

import logging
import re
import socket
import sqlite3
import struct
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

import orjson

from ..brokers.sqlite_file import PATIENCE, SqliteFile
from ..brokers.sqlite_schema import EXPIRE
from ..brokers.wakeup import SLOTS, Waiter, mark
from ..contracts import GroupStore, Inbox, Marks, Record, ResultStore
from ..errors import FsdfError
from .base import Deliver, guarded
from .sqlite_groups import SqliteGroups
from .sqlite_marks import SqliteMarks

__all__ = ["SqliteStore"]

_log = logging.getLogger("fsdf.stores")
AGAIN = 1.0  # seconds until a file that could not be read is tried again
TIDY = 60.0  # seconds between two looks for what has expired
WATCHED = 86400.0  # seconds until a watch of a process that died is forgotten
_DATAGRAM = 60_000  # bytes
_LENGTHS = struct.Struct("!HI")  # of id and body
_GAP = "a gap in what was sent"  # the mark's name
_ADDRESS = re.compile(r"bell-(\d{1,9})-([0-9a-f]{32})")  # slot, and what its datagrams begin with
# Store one record unless what is there is newer, or final while this one is not; of another origin,
# unless what is there is final. O(log n).
_WRITE = """
INSERT INTO result (id, sends, deliveries, attempt, final, expires, body, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET sends = excluded.sends, deliveries = excluded.deliveries,
    attempt = excluded.attempt, final = excluded.final, expires = excluded.expires,
    body = excluded.body, origin = excluded.origin
WHERE result.expires <= ? OR CASE WHEN result.origin IN ('', excluded.origin)
    THEN result.final <= excluded.final AND (result.sends, result.deliveries,
        iif(result.final < excluded.final, -1, result.attempt))
        <= (excluded.sends, excluded.deliveries, excluded.attempt)
    ELSE NOT result.final END
"""
_ANOTHER = "SELECT 1 FROM result WHERE id = ? AND final AND origin NOT IN ('', ?)"
_READ = """
SELECT id, body FROM result
WHERE id IN (SELECT value FROM json_each(?)) AND expires > ? AND final >= ?
"""  # O(ids log n)


class SqliteStore(ResultStore):
    """Results in one SQLite file. `url` is its path."""

    setting: ClassVar[str] = "SQLITE_PATH"

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        super().__init__(url)
        self.file = SqliteFile.shared(url, patience)
        self._marks = SqliteMarks(self.file)
        self._tidied = 0.0
        self._groups = SqliteGroups(self.file)

    def write(self, records: Sequence[Record]) -> None:
        now = time.time()
        notices: defaultdict[str, list[Record]] = defaultdict(list)
        with self.file.write() as db:
            stored, others = self._store(db, records, now)
            for table in ("result", "watch"):
                db.execute(EXPIRE.format(table), (now, len(records) + 100))
            for record in (*stored.values(), *others):
                notices[record.reply].append(record)
            for address, key in _watching(db, stored):
                notices[address].append(stored[key])
        for address, found in notices.items():
            self._send(address, found)
        self._tidy()

    def _store(
        self, db: sqlite3.Connection, records: Sequence[Record], now: float
    ) -> tuple[dict[str, Record], list[Record]]:
        """Store; return the ends stored, by key, and those refused for another message's end."""
        stored: dict[str, Record] = {}
        others: list[Record] = []
        for r in records:
            key, end = self.key_of(r.id, r.layout), now + r.expires
            fence = r.sends, r.deliveries, r.attempt, r.final
            if db.execute(_WRITE, (key, *fence, end, r.body, r.origin, now)).rowcount > 0:
                if r.final:
                    stored[key] = r
            elif r.final and r.reply and db.execute(_ANOTHER, (key, r.origin)).fetchone():
                others.append(r)
        return stored, others

    def _send(self, address: str, records: Sequence[Record]) -> None:
        """Tell an inbox; never blocks, and what was not sent is marked as a gap."""
        found = _ADDRESS.fullmatch(address)
        if not found or int(found[1]) >= SLOTS:
            return  # of another store, or of nobody
        slot, wakeups = int(found[1]), self.file.wakeups
        try:
            if wakeups.port(slot):  # such a socket drops what it has no room for
                raise BlockingIOError
            for datagram in _packed(bytes.fromhex(found[2]), records):
                if not wakeups.send(slot, datagram):
                    return  # it is gone
        except BlockingIOError:
            wakeups.arm(slot, mark(_GAP))
            wakeups.send(slot)

    def _tidy(self) -> None:
        """Now and then, let the file forget what has expired, and shrink."""
        if (now := time.monotonic()) >= (before := self._tidied) + TIDY:
            self._tidied = now
            with suppress(FsdfError):  # a file that is locked or full: another time
                if self.file.shrink(sweep=True):
                    self._tidied = before  # there is more: go on at the next call

    def read(
        self, ids: Sequence[str], *, final: bool = False, layout: str = ""
    ) -> Mapping[str, bytes]:
        self._tidy()
        keys = {self.key_of(id, layout): id for id in ids}
        with self.file.read() as db:
            rows = db.execute(_READ, (_json(keys), time.time(), final)).fetchall()
        return {keys[key]: body for key, body in rows}

    def forget(self, ids: Sequence[str], *, layout: str = "") -> int:
        sql = "DELETE FROM result WHERE id IN (SELECT value FROM json_each(?)) AND expires > ?"
        keys = _json(self.key_of(id, layout) for id in ids)
        with self.file.write() as db:
            return db.execute(sql, (keys, time.time())).rowcount

    def inbox(
        self,
        deliver: Callable[[str, bytes], None],
        pending: Callable[[], Sequence[str]],
        *,
        layout: str = "",
    ) -> Inbox:
        return _SqliteInbox(self, guarded(deliver), pending, layout)

    def close(self) -> None:
        self.file.close()

    def marks(self) -> Marks:
        return self._marks

    def groups(self) -> GroupStore:
        return self._groups


def _json(texts: Iterable[str]) -> str:
    return orjson.dumps(list(texts)).decode()


def _watching(db: sqlite3.Connection, keys: Collection[str]) -> list[tuple[str, str]]:
    """Return (address, key) of those who watch any of these; they are told once."""
    if not keys or not db.execute("SELECT 1 FROM watch LIMIT 1").fetchone():
        return []
    sql = """DELETE FROM watch WHERE id IN (SELECT value FROM json_each(?))
        RETURNING address, id"""
    return db.execute(sql, (_json(keys),)).fetchall()


def _packed(token: bytes, records: Sequence[Record]) -> Iterator[bytes]:
    """Yield datagrams; raise BlockingIOError for what fits into none."""
    parts = [token]
    size = 0
    for record in records:
        id = record.id.encode("utf-8", "surrogatepass")
        part = _LENGTHS.pack(len(id), len(record.body)) + id + record.body
        if len(part) > _DATAGRAM:
            raise BlockingIOError
        if size + len(part) > _DATAGRAM:
            yield b"".join(parts)
            parts, size = [token], 0
        parts.append(part)
        size += len(part)
    yield b"".join(parts)


def _unpacked(token: bytes, datagram: bytes) -> Iterator[tuple[str, bytes]]:
    at = len(token)
    if not datagram.startswith(token):  # a bare ring, or of somebody who was not given our address
        return
    while at + _LENGTHS.size <= len(datagram):
        id_length, length = _LENGTHS.unpack_from(datagram, at)
        at += _LENGTHS.size
        id = datagram[at : at + id_length].decode("utf-8", "surrogatepass")
        at += id_length + length
        yield id, datagram[at - length : at]


class _SqliteInbox(Inbox):
    def __init__(
        self,
        store: SqliteStore,
        deliver: Deliver,
        pending: Callable[[], Sequence[str]],
        layout: str,
    ) -> None:
        self._store, self._deliver, self._pending = store, deliver, pending
        self._layout = layout
        self._wakeups = store.file.wakeups
        with store.file.translating():
            # not the native socket: under a patched `socket` this "thread" shares the hub's
            self._waiter = Waiter(self._wakeups, "", socket.socket)
        token = uuid.uuid4()
        self._token, self.address = token.bytes, f"bell-{self._waiter.slot}-{token.hex}"
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="fsdf-inbox", daemon=True)
        self._thread.start()

    def watch(self, ids: Sequence[str]) -> None:
        keys = {id: self._store.key_of(id, self._layout) for id in ids}
        rows = [(key, self.address, time.time() + WATCHED) for key in keys.values()]
        with self._store.file.write() as db:
            db.executemany("INSERT OR REPLACE INTO watch VALUES (?, ?, ?)", rows)
        found = self._store.read(ids, final=True, layout=self._layout)
        if found:
            with self._store.file.write() as db:
                mine = [(keys[id], self.address) for id in found]
                db.executemany("DELETE FROM watch WHERE id = ? AND address = ?", mine)
        for id, body in found.items():
            self._deliver(id, body)

    def _run(self) -> None:
        gap = False
        while not self._closing:
            for datagram in self._waiter.block(AGAIN if gap else None):
                for id, body in _unpacked(self._token, datagram):
                    self._deliver(id, body)
            if self._wakeups.armed(self._waiter.slot, mark(_GAP)):
                self._waiter.disarm()
                gap = True
            if gap and not self._closing:
                gap = not self._catch_up()

    def _catch_up(self) -> bool:
        """Deliver what was missed; False if the file cannot be read now."""
        try:
            found = self._store.read(self._pending(), final=True, layout=self._layout)
        except FsdfError as error:
            _log.warning("results cannot be read, trying again", extra={"error": str(error)})
            return False
        for id, body in found.items():
            self._deliver(id, body)
        return True

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._waiter.inherited:  # a forked child: the thread and the watches are the parent's
            return
        self._waiter.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._store.file.write() as db:
            db.execute("DELETE FROM watch WHERE address = ?", (self.address,))
        self._waiter.close()
