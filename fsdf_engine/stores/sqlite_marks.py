"""Marks in a SQLite file."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import orjson

from ..brokers.sqlite_file import SqliteFile
from ..brokers.sqlite_schema import EXPIRE
from ..contracts import Mark, Marks
from .base import LAPSED

__all__ = ["SqliteMarks"]

# `expires` is NULL for a watched mark, `lapses` for any other. Values: name, value, expires,
# lapses, now. O(log n).
_PUT = """
INSERT INTO mark (name, value, expires, lapses) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires = excluded.expires,
    lapses = excluded.lapses
WHERE mark.expires <= ?
"""
# Of the marks named in a JSON list, those that are there. Values: names, now. O(names log n).
_NAMED = """
    name IN (SELECT value FROM json_each(?)) AND (expires > ? OR expires IS NULL)
"""
# Values: names, now. A join needs half the time of IN, which sorts the names first.
_READ = """
SELECT name, mark.value FROM json_each(?) AS one CROSS JOIN mark ON name = one.value
WHERE expires > ? OR expires IS NULL
"""
_DELETE = f"DELETE FROM mark WHERE {_NAMED}"
# Values: end, end, names, now.
_RENEW = f"""
UPDATE mark SET expires = iif(expires IS NULL, NULL, ?), lapses = iif(lapses IS NULL, NULL, ?)
WHERE {_NAMED} RETURNING name
"""
# Values: now, length of the prefix, prefix. O(lapsed).
_LAPSED = "FROM mark WHERE lapses <= ? AND substr(name, 1, ?) = ?"
_ANY = f"SELECT 1 {_LAPSED} LIMIT 1"
# Values: end, and the same.
_CLAIM = f"""
UPDATE mark SET lapses = ? WHERE rowid IN (SELECT rowid {_LAPSED} LIMIT {LAPSED})
RETURNING name, value
"""


class SqliteMarks(Marks):
    """A table of the file that also holds the results."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def put(self, marks: Sequence[Mark]) -> Collection[str]:
        now, put = time.time(), []
        with self._file.write() as db:
            for m in marks:
                end = now + m.life
                ends = (None, end) if m.watched else (end, None)
                if db.execute(_PUT, (m.name, m.value, *ends, now)).rowcount > 0:
                    put.append(m.name)
            db.execute(EXPIRE.format("mark"), (now, len(marks) + 100))
        return put

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        with self._file.read() as db:
            return dict(db.execute(_READ, (_json(names), time.time())).fetchall())

    def delete(self, names: Sequence[str]) -> int:
        with self._file.write_once() as db:
            return db.execute(_DELETE, (_json(names), time.time())).rowcount

    def renew(self, names: Sequence[str], life: float) -> Collection[str]:
        now = time.time()
        with self._file.write_once() as db:
            rows = db.execute(_RENEW, (now + life, now + life, _json(names), now)).fetchall()
        return [name for (name,) in rows]

    def lapsed(self, life: float, prefix: str = "") -> Sequence[Mark]:
        now = time.time()
        those = now, len(prefix), prefix
        with self._file.read() as db:
            if not db.execute(_ANY, those).fetchone():  # most often: nobody waits for a reader
                return []
        with self._file.write_once() as db:
            rows = db.execute(_CLAIM, (now + life, *those)).fetchall()
        return [Mark(name, value, life, watched=True) for name, value in rows]


def _json(names: Sequence[str]) -> str:
    return orjson.dumps(list(names)).decode()
