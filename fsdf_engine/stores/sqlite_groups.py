"""Groups in the SQLite file that also holds the queues and the results.

Their tables are made by the first call that needs them; a version without groups leaves them alone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import orjson

from ..brokers.sqlite_file import SqliteFile
from ..contracts import Claim, Completed, Group, GroupStore, Member
from .group_form import check_size, fitting, ordered, packed, tell_unknown, unpacked

__all__ = ["SqliteGroups"]

# barrier.at: when it was completed; until then no member is refused. `keys` are those that it has
# grown by, as a JSON object.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS barrier (
    id TEXT PRIMARY KEY, size INTEGER, grown INTEGER NOT NULL DEFAULT 0,
    keys TEXT NOT NULL DEFAULT '{}', count INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, life REAL NOT NULL, expires REAL NOT NULL, at REAL,
    place TEXT, holder TEXT, until REAL NOT NULL DEFAULT 0, claims INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0, messages BLOB)""",
    """CREATE INDEX IF NOT EXISTS barrier_done ON barrier (place, until)
    WHERE at NOT NULL AND NOT closed""",
    "CREATE INDEX IF NOT EXISTS barrier_expires ON barrier (expires)",
    """CREATE TABLE IF NOT EXISTS barrier_member (
    barrier TEXT, id TEXT, place INTEGER, failed INTEGER, body BLOB, PRIMARY KEY (barrier, id))""",
    "CREATE TABLE IF NOT EXISTS barrier_run (barrier TEXT PRIMARY KEY, run TEXT NOT NULL)",
)
_OPEN = "INSERT OR IGNORE INTO barrier (id, size, life, expires, messages) VALUES (?, ?, ?, ?, ?)"
_RUN = "INSERT OR IGNORE INTO barrier_run VALUES (?, ?)"
_OVER = """
SELECT 1 FROM barrier LEFT JOIN barrier_run ON barrier = id
WHERE id = ? AND (at NOT NULL OR closed) AND coalesce(run, '') <> ?
"""
_RENEW = "UPDATE barrier SET expires = ? + life WHERE id = ? RETURNING at, bytes, closed"
_ADD = "INSERT OR IGNORE INTO barrier_member VALUES (?, ?, ?, ?, ?)"
_COUNT = "UPDATE barrier SET count = count + 1, bytes = bytes + ? WHERE id = ?"
# Claim one group for a holder, if it is complete and nobody else has it. O(log n).
_CLAIM = """
UPDATE barrier SET at = coalesce(at, :now), place = :place, holder = :holder,
    until = :now + :lease, claims = claims + 1, expires = :now + life
WHERE id = :id AND NOT closed AND (at NOT NULL OR size NOT NULL AND count >= size + grown)
    AND (until <= :now OR holder = :holder)
RETURNING at, claims, life, messages
"""
_ENDED = """
SELECT id FROM barrier WHERE place = ? AND until <= ? AND at NOT NULL AND NOT closed LIMIT ?
"""
_MEMBERS = "SELECT id, body, failed, place FROM barrier_member WHERE barrier = ?"
_EXPIRED = "SELECT id FROM barrier WHERE expires <= ? LIMIT 100"


class SqliteGroups(GroupStore):
    """Groups in one SQLite file."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def open(self, groups: Sequence[Group], claim: Claim) -> Sequence[Completed]:
        with self._file.write() as db:
            now = _prepare(db)
            for g in groups:
                check_size(g.size or 0)
                messages = packed(g.body, g.on_failure)
                if g.run and db.execute(_OVER, (g.id, g.run)).fetchone():
                    _forget(db, g.id)
                db.execute(_OPEN, (g.id, g.size, g.expires, now + g.expires, messages))
                if g.run:
                    db.execute(_RUN, (g.id, g.run))
            return _claimed(db, [g.id for g in groups], claim, now)

    def add(self, members: Sequence[Member], claim: Claim) -> Sequence[Completed]:
        unknown: set[str] = set()
        with self._file.write() as db:
            now = _prepare(db)
            for member in members:
                row = db.execute(_RENEW, (now, member.group)).fetchone()
                if row is None:
                    unknown.add(member.group)
                elif row[0] is None and not row[2]:
                    m = fitting(member, row[1])
                    if db.execute(_ADD, (m.group, m.id, m.place, m.failed, m.body)).rowcount > 0:
                        db.execute(_COUNT, (len(m.body) if m is member else 0, m.group))
            ids = list(dict.fromkeys(member.group for member in members))
            completed = _claimed(db, ids, claim, now)
        tell_unknown(unknown)
        return completed

    def set_size(self, id: str, size: int, claim: Claim) -> Sequence[Completed]:
        check_size(size)
        sql = "UPDATE barrier SET size = coalesce(size, ?) WHERE id = ?"
        with self._file.write() as db:
            now = _prepare(db)
            is_there = db.execute(sql, (size, id)).rowcount > 0
            completed = _claimed(db, [id], claim, now)
        tell_unknown([] if is_there else [id])
        return completed

    def grow(self, id: str, by: int, key: str) -> bool:
        check_size(by, 1)
        sql = "UPDATE barrier SET grown = grown + ?, keys = ?, expires = ? + life WHERE id = ?"
        with self._file.write() as db:
            now = _prepare(db)
            found = "SELECT keys, at NOT NULL OR closed FROM barrier WHERE id = ?"
            text, is_over = db.execute(found, (id,)).fetchone() or ("{}", True)
            keys = orjson.loads(text)
            if key not in keys and not is_over:
                keys[key] = by
                db.execute(sql, (by, orjson.dumps(keys).decode(), now, id))
            return key in keys

    def claim(self, claim: Claim, limit: int = 100) -> Sequence[Completed]:
        with self._file.write() as db:
            now = _prepare(db)
            ids = [id for (id,) in db.execute(_ENDED, (claim.place, now, limit)).fetchall()]
            return _claimed(db, ids, claim, now)

    def close(self, ids: Sequence[str], claim: Claim) -> None:
        over = """UPDATE barrier SET closed = 1, messages = NULL, expires = ? + life
            WHERE id = ? AND holder = ?"""
        with self._file.write() as db:
            now = _prepare(db)
            for id in ids:
                if db.execute(over, (now, id, claim.holder)).rowcount > 0:
                    db.execute("DELETE FROM barrier_member WHERE barrier = ?", (id,))


def _prepare(db: sqlite3.Connection) -> float:
    """See that the tables are there, and forget what has expired; return the time."""
    now = time.time()
    for statement in _TABLES:
        db.execute(statement)
    for (id,) in db.execute(_EXPIRED, (now,)).fetchall():
        _forget(db, id)
    return now


def _forget(db: sqlite3.Connection, id: str) -> None:
    db.execute("DELETE FROM barrier WHERE id = ?", (id,))
    for table in ("barrier_member", "barrier_run"):
        db.execute(f"DELETE FROM {table} WHERE barrier = ?", (id,))


def _claimed(
    db: sqlite3.Connection, ids: Sequence[str], claim: Claim, now: float
) -> list[Completed]:
    found = []
    for id in ids:
        rows = db.execute(_CLAIM, {**claim._asdict(), "id": id, "now": now}).fetchall()
        for at, claims, life, messages in rows:
            members = db.execute(_MEMBERS, (id,)).fetchall()
            ended = ordered(Member(id, name, b, bool(f), p) for name, b, f, p in members)
            found.append(Completed(id, at, claims, life, *unpacked(messages), ended))
    return found
