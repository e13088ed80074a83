"""Results in the SQLite file that also holds the queues.

A writer sends the final records to the inboxes that wait for them as datagrams, after its commit:
nothing is read back. Where one does not fit, it leaves a mark instead, upon which the inbox reads
what it still waits for.
"""

from __future__ import annotations

import logging
import socket
import sqlite3
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import orjson

from ..brokers.bell import SLOTS, Waiter, mark
from ..brokers.sqlite_file import PATIENCE, SqliteFile
from ..contracts import Inbox, Record, ResultStore
from ..errors import FsdfError
from .base import Deliver, guarded

__all__ = ["SqliteStore"]

_log = logging.getLogger("fsdf.stores")
AGAIN = 1.0  # seconds until a file that could not be read is tried again
WATCHED = 86400.0  # seconds until a watch of a process that died is forgotten
_DATAGRAM = 60_000  # bytes
_LENGTHS = struct.Struct("!HI")  # of id and body
_GAP = "a gap in what was sent"  # the mark's name
_ADDRESS = "bell-"
# Store one record unless what is there is newer, or final while this one is not. O(log n).
_WRITE = """
INSERT INTO result (id, deliveries, final, expires, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET deliveries = excluded.deliveries, final = excluded.final,
    expires = excluded.expires, body = excluded.body
WHERE result.expires <= ? OR (result.deliveries <= excluded.deliveries
    AND result.final <= excluded.final)
"""
_READ = """
SELECT id, body FROM result
WHERE id IN (SELECT value FROM json_each(?)) AND expires > ? AND final >= ?
"""  # O(ids log n)
_EXPIRE = """
DELETE FROM {0} WHERE rowid IN (SELECT rowid FROM {0} WHERE expires <= ? LIMIT ?)
"""  # O(deleted log n)


class SqliteStore(ResultStore):
    """Results in one SQLite file. `url` is its path."""

    setting: ClassVar[str] = "SQLITE_PATH"

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        super().__init__(url)
        self.file = SqliteFile.shared(url, patience)

    def write(self, records: Sequence[Record]) -> None:
        now = time.time()
        notices: defaultdict[str, list[Record]] = defaultdict(list)
        with self.file.write() as db:
            stored = [record for record in records if _store(db, record, now)]
            db.execute(_EXPIRE.format("result"), (now, len(records) + 100))
            db.execute(_EXPIRE.format("watch"), (now, 100))
            for address, record in _waiters(db, stored):
                notices[address].append(record)
        for address, found in notices.items():
            self._send(address, found)

    def _send(self, address: str, records: Sequence[Record]) -> None:
        """Tell an inbox; never blocks, and what was not sent is marked as a gap."""
        number = address[len(_ADDRESS) :]
        if not address.startswith(_ADDRESS) or not number.isdecimal() or int(number) >= SLOTS:
            return  # of another store
        slot, bell = int(number), self.file.bell
        try:
            if bell.port(slot):  # such a socket drops what it has no room for
                raise BlockingIOError
            for datagram in _packed(records):
                if not bell.send(slot, datagram):
                    return  # it is gone
        except BlockingIOError:
            bell.arm(slot, mark(_GAP))
            bell.send(slot)

    def read(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        return self.stored(ids, final=False)

    def stored(self, ids: Sequence[str], *, final: bool) -> dict[str, bytes]:
        """Return the bodies of these, of the final ones only if so asked."""
        wanted = orjson.dumps(list(ids)).decode()
        with self.file.read() as db:
            return dict(db.execute(_READ, (wanted, time.time(), final)).fetchall())

    def forget(self, ids: Sequence[str]) -> int:
        sql = "DELETE FROM result WHERE id IN (SELECT value FROM json_each(?)) AND expires > ?"
        with self.file.write() as db:
            return db.execute(sql, (orjson.dumps(list(ids)).decode(), time.time())).rowcount

    def inbox(
        self, deliver: Callable[[str, bytes], None], pending: Callable[[], Sequence[str]]
    ) -> Inbox:
        return _SqliteInbox(self, guarded(deliver), pending)

    def close(self) -> None:
        self.file.close()


def _store(db: sqlite3.Connection, record: Record, now: float) -> bool:
    """Store a record; False if it changed nothing."""
    values = (record.id, record.deliveries, record.final, now + record.expires, record.body, now)
    return db.execute(_WRITE, values).rowcount > 0


def _waiters(db: sqlite3.Connection, stored: Sequence[Record]) -> Iterator[tuple[str, Record]]:
    """Yield whom to tell of which record; those who watch are told once."""
    final = {record.id: record for record in stored if record.final}
    for record in final.values():
        if record.reply:
            yield record.reply, record
    if final and db.execute("SELECT 1 FROM watch LIMIT 1").fetchone():
        sql = """DELETE FROM watch WHERE id IN (SELECT value FROM json_each(?))
            RETURNING id, address"""
        for id, address in db.execute(sql, (orjson.dumps(list(final)).decode(),)).fetchall():
            yield address, final[id]


def _packed(records: Sequence[Record]) -> Iterator[bytes]:
    """Yield datagrams; raise BlockingIOError for what fits into none."""
    parts: list[bytes] = []
    size = 0
    for record in records:
        id = record.id.encode("utf-8", "surrogatepass")
        part = _LENGTHS.pack(len(id), len(record.body)) + id + record.body
        if len(part) > _DATAGRAM:
            raise BlockingIOError
        if size + len(part) > _DATAGRAM:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    yield b"".join(parts)


def _unpacked(datagram: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at + _LENGTHS.size <= len(datagram):
        id_length, length = _LENGTHS.unpack_from(datagram, at)
        at += _LENGTHS.size
        id = datagram[at : at + id_length].decode("utf-8", "surrogatepass")
        at += id_length + length
        yield id, datagram[at - length : at]


class _SqliteInbox(Inbox):
    def __init__(
        self, store: SqliteStore, deliver: Deliver, pending: Callable[[], Sequence[str]]
    ) -> None:
        self._store, self._deliver, self._pending = store, deliver, pending
        self._bell = store.file.bell
        with store.file.translating():
            # not the native socket: under a patched `socket` this "thread" shares the hub's
            self._waiter = Waiter(self._bell, "", socket.socket)
        self.address = f"{_ADDRESS}{self._waiter.slot}"
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="fsdf-inbox", daemon=True)
        self._thread.start()

    def watch(self, ids: Sequence[str]) -> None:
        rows = [(id, self.address, time.time() + WATCHED) for id in ids]
        with self._store.file.write() as db:
            db.executemany("INSERT OR REPLACE INTO watch VALUES (?, ?, ?)", rows)
        found = self._store.stored(ids, final=True)
        if found:
            with self._store.file.write() as db:
                mine = [(id, self.address) for id in found]
                db.executemany("DELETE FROM watch WHERE id = ? AND address = ?", mine)
        for id, body in found.items():
            self._deliver(id, body)

    def _run(self) -> None:
        gap = False
        while not self._closing:
            for datagram in self._waiter.block(AGAIN if gap else None):
                for id, body in _unpacked(datagram):
                    self._deliver(id, body)
            if self._bell.armed(self._waiter.slot, mark(_GAP)):
                self._waiter.disarm()
                gap = True
            if gap and not self._closing:
                gap = not self._catch_up()

    def _catch_up(self) -> bool:
        """Deliver what was missed; False if the file cannot be read now."""
        try:
            found = self._store.stored(self._pending(), final=True)
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
