"""Marks in an SQL database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..brokers.sql_database import SqlDatabase
from ..brokers.sql_rows import clean
from ..brokers.sql_session import Row, Session
from ..contracts import Mark, Marks
from ..offload import Offload
from .base import LAPSED

__all__ = ["SqlMarks"]

_THERE = "(expires > @@now OR expires IS NULL)"


class SqlMarks(Marks):
    """A table beside the results. `expires` is NULL for a watched mark, `lapses` for any other."""

    def __init__(self, database: SqlDatabase, call: Offload) -> None:
        self._database, self._call = database, call

    def put(self, marks: Sequence[Mark]) -> Collection[str]:
        if not marks:
            return []
        return self._call(self._database.run, lambda session: self._put(session, marks))

    def _put(self, session: Session, marks: Sequence[Mark]) -> list[str]:
        database, put = self._database, []
        first = {mark.name: mark for mark in reversed(marks)}
        keyed = {database.key(name): first[name] for name in dict.fromkeys(m.name for m in marks)}
        names, values = _named(sorted(keyed))
        those = f"id IN ({', '.join(names)})"
        with session.transaction():
            gone = database.sql(f"DELETE FROM @mark WHERE {those} AND expires <= @@now")
            session.rows(gone, values)
            sql = database.sql(f"SELECT id FROM @mark WHERE {those} FOR UPDATE")
            there = {_key(row[0]) for row in session.rows(sql, values)}
            for key, mark in sorted(keyed.items()):
                if key not in there and self._insert(session, key, mark):
                    put.append(mark.name)
        return put

    def _insert(self, session: Session, key: Any, mark: Mark) -> bool:
        end = f"@@now + {min(mark.life, 1e12)!r}"
        ends = f"NULL, {end}" if mark.watched else f"{end}, NULL"
        sql = "INSERT INTO @mark (id, name, value, expires, lapses)"
        sql = self._database.ignoring(f"{sql} VALUES (%(id)s, %(name)s, %(value)s, {ends})")
        values = {"id": key, "name": clean(mark.name), "value": mark.value}
        return session.count(sql, values) > 0

    def _ask(self, names: Sequence[str], begin: str, end: str = "") -> list[Row]:
        """Return what a statement gives about those of these names that are there."""
        if not names:
            return []
        marked, values = _named([self._database.key(name) for name in names])
        sql = self._database.sql(f"{begin} WHERE id IN ({', '.join(marked)}) AND {_THERE} {end}")
        return self._call(self._database.run, lambda session: session.rows(sql, values))

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        keys = {self._database.key(name): name for name in names}
        rows = self._ask(names, "SELECT id, value FROM @mark")
        return {keys[_key(id)]: bytes(value) for id, value in rows}

    def delete(self, names: Sequence[str]) -> int:
        if not names:
            return 0
        marked, values = _named([self._database.key(name) for name in set(names)])
        those = f"id IN ({', '.join(marked)}) AND {_THERE}"
        sql = self._database.sql(f"DELETE FROM @mark WHERE {those}")
        return int(self._call(self._database.run, lambda session: session.count(sql, values)))

    def renew(self, names: Sequence[str], life: float) -> Collection[str]:
        keys = {self._database.key(name): name for name in names}
        marked, values = _named(sorted(keys))
        those = f"id IN ({', '.join(marked)}) AND {_THERE}"
        end = f"@@now + {min(life, 1e12)!r}"
        update = f"""UPDATE @mark SET
            expires = CASE WHEN expires IS NULL THEN NULL ELSE {end} END,
            lapses = CASE WHEN lapses IS NULL THEN NULL ELSE {end} END WHERE {those}"""
        read = f"SELECT id FROM @mark WHERE {those} ORDER BY id FOR UPDATE"

        def renew(session: Session) -> list[str]:
            with session.transaction():
                rows = session.rows(self._database.sql(read), values)
                if rows:
                    session.rows(self._database.sql(update), values)
            return [keys[_key(row[0])] for row in rows]

        return self._call(self._database.run, renew) if names else []

    def lapsed(self, life: float, prefix: str = "") -> Sequence[Mark]:
        values = {"prefix": prefix, "length": len(prefix)}
        read = self._database.sql(f"""SELECT id, name, value FROM @mark WHERE lapses <= @@now
            AND left(name, %(length)s) = %(prefix)s ORDER BY id LIMIT {LAPSED}
            FOR UPDATE SKIP LOCKED""")

        def claim(session: Session) -> list[Row]:
            with session.transaction():
                rows = session.rows(read, values)
                if rows:
                    marked, named = _named([row[0] for row in rows])
                    end = f"@@now + {min(life, 1e12)!r}"
                    sql = f"UPDATE @mark SET lapses = {end} WHERE id IN ({', '.join(marked)})"
                    session.rows(self._database.sql(sql), named)
            return rows

        rows = self._call(self._database.run, claim)
        return [Mark(name, bytes(value), life, watched=True) for _, name, value in rows]


def _key(value: Any) -> Any:
    return value if isinstance(value, str) else bytes(value)


def _named(keys: Sequence[Any]) -> tuple[list[str], dict[str, Any]]:
    return [f"%(k{n})s" for n in range(len(keys))], {f"k{n}": key for n, key in enumerate(keys)}
