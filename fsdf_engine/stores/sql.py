"""Results in a database of PostgreSQL, MariaDB or MySQL; a SQLite file is SqliteStore's.

A writer tells the inboxes that wait: on PostgreSQL by a notification that carries what is small, so
nothing is read back; elsewhere by rows that the inbox looks for, at least four times a second.
Under a hub all calls are made in native threads.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from ..brokers.sql_database import SqlDatabase
from ..brokers.sql_place import is_sqlite
from ..brokers.sql_session import Row, Session
from ..contracts import GroupStore, Inbox, Marks, Record, ResultStore
from ..errors import FsdfError
from ..offload import Offload
from .base import guarded, is_another, replaces
from .sql_groups import SqlGroups
from .sql_inbox import SqlInbox, told
from .sql_marks import SqlMarks

__all__ = ["SqlStore"]

TIDY = 60.0  # seconds between two looks for what has expired
LONGEST = 1e12  # seconds; for ever
WATCHED = 86400.0  # seconds until a watch of a process that died is forgotten
_CHUNK = 1000
_COLUMNS = "id, sends, deliveries, attempt, final, expires, body, origin"
# A record, unless what is there is newer, or final while this one is not; of another origin, unless
# what is there is final. O(records log n).
_WRITE = f"""
INSERT INTO @result AS r ({_COLUMNS})
SELECT id, sends, deliveries, attempt, final, @@now + life, body, origin
FROM unnest(%(id)s::text[], %(sends)s::int[], %(deliveries)s::int[], %(attempt)s::int[],
    %(final)s::int[], %(life)s::float8[], %(body)b::bytea[], %(origin)s::text[])
    AS n (id, sends, deliveries, attempt, final, life, body, origin) ORDER BY id
ON CONFLICT (id) DO UPDATE SET sends = excluded.sends, deliveries = excluded.deliveries,
    attempt = excluded.attempt, final = excluded.final, expires = excluded.expires,
    body = excluded.body, origin = excluded.origin
WHERE r.expires <= @@now OR CASE WHEN r.origin IN ('', excluded.origin)
    THEN r.final <= excluded.final AND (r.sends, r.deliveries,
        CASE WHEN r.final < excluded.final THEN -1 ELSE r.attempt END)
        <= (excluded.sends, excluded.deliveries, excluded.attempt)
    ELSE r.final = 0 END
RETURNING id
"""
_ENDS = "id IN ({ids}) AND expires > @@now"


class SqlStore(ResultStore):
    """Results in one database. `url` is an SQLAlchemy URL."""

    setting: ClassVar[str] = "SQLALCHEMY_URL"

    def __new__(cls, url: str) -> Any:
        """Leave a SQLite file to its own store."""
        if is_sqlite(url):
            from .sqlite import SqliteStore

            return SqliteStore(url)
        return super().__new__(cls)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.database = SqlDatabase.shared(url)
        self.inboxes: dict[str, SqlInbox] = {}  # of this process, by their addresses
        self._call = Offload()
        self._marks = SqlMarks(self.database, self._call)
        self._groups = SqlGroups(self.database, self._call)
        self._tidied = time.monotonic()

    def write(self, records: Sequence[Record]) -> None:
        if records:
            self._call(self._write, records)

    def _write(self, records: Sequence[Record]) -> None:
        store = self._upsert if self.database.is_postgresql else self._merge
        notices: defaultdict[str, list[Record]] = defaultdict(list)
        for batch in _apart(records, lambda r: self.key_of(r.id, r.layout)):
            keyed = {self.database.key(self.key_of(r.id, r.layout)): r for r in batch}
            stored = self.database.run(lambda session, keyed=keyed: store(session, keyed))  # type: ignore[misc]
            ends = {key: keyed[key] for key in stored if keyed[key].final}
            for record in ends.values():
                notices[record.reply].append(record)
            for record in self._of_others(keyed, stored):
                notices[record.reply].append(record)
            for address, record in self._watched(ends):
                notices[address].append(record)
        notices.pop("", None)
        for address, found in notices.items():
            told(self, address, found)
        self._tidy()

    def _upsert(self, session: Session, keyed: Mapping[Any, Record]) -> set[Any]:
        values = {
            "id": list(keyed), "life": [min(r.expires, LONGEST) for r in keyed.values()],
            "final": [int(r.final) for r in keyed.values()],
            **{name: [getattr(r, name) for r in keyed.values()]
               for name in ("sends", "deliveries", "attempt", "body", "origin")},
        }  # fmt: skip
        return {row[0] for row in session.rows(self.database.sql(_WRITE), values)}

    def _merge(self, session: Session, keyed: Mapping[Any, Record]) -> set[Any]:
        """Make rows, lock them, write those that are newer."""
        names, values = _named(list(keyed))
        rows = ", ".join(f"({name}, -1, -1, -1, 0, 0, '', '')" for name in names)
        *_, kept, [[now]] = session.many(
            ("BEGIN", {}),
            (self.database.sql(f"INSERT IGNORE INTO @result ({_COLUMNS}) VALUES {rows}"), values),
            (self.database.sql(
                f"SELECT {_COLUMNS} FROM @result WHERE id IN ({', '.join(names)}) FOR UPDATE"),
             values),
            (self.database.sql("SELECT @@now"), {}),
        )  # fmt: skip
        before = {bytes(row[0]): _record(row) for row in kept if row[5] > now}
        new = {key: r for key, r in keyed.items() if key not in before or replaces(before[key], r)}
        if new:
            names, values = _named(list(new))
            rows_of = []
            for n, (name, r) in enumerate(zip(names, new.values())):
                values |= {f"body{n}": r.body, f"origin{n}": r.origin}
                fence = f"{r.sends}, {r.deliveries}, {r.attempt}, {int(r.final)}"
                life = min(r.expires, LONGEST)
                rows_of.append(f"({name}, {fence}, @@now + {life!r}, %(body{n})s, %(origin{n})s)")
            sql = f"INSERT INTO @result ({_COLUMNS}) VALUES {', '.join(rows_of)}" + _AGAIN
            session.rows(self.database.sql(sql), values)
        session.rows("COMMIT")
        return set(new)

    def _of_others(self, keyed: Mapping[Any, Record], stored: set[Any]) -> list[Record]:
        """Return those refused for the end of another message: who waits for them is told."""
        refused = {k: r for k, r in keyed.items() if k not in stored and r.final and r.reply}
        if not refused:
            return []
        names, values = _named(list(refused))
        sql = f"SELECT {_COLUMNS} FROM @result WHERE {_ENDS.format(ids=', '.join(names))}"
        rows = self.database.run(lambda s: s.rows(self.database.sql(sql), values))
        kept = {self._key_in(row[0]): _record(row) for row in rows}
        return [r for k, r in refused.items() if k in kept and is_another(kept[k], r)]

    def _watched(self, ends: Mapping[Any, Record]) -> list[tuple[str, Record]]:
        """Return (address, record) of those who watch any of these; they are told once."""
        if not ends:
            return []
        names, values = _named(list(ends))
        those = f"FROM @watch WHERE id IN ({', '.join(names)})"

        def take(session: Session) -> list[Row]:
            rows = session.rows(self.database.sql(f"SELECT id, address {those}"), values)
            if rows:
                session.rows(self.database.sql(f"DELETE {those}"), values)
            return rows

        found = self.database.run(take)
        return [(self.database.text(address), ends[self._key_in(id)]) for id, address in found]

    def _key_in(self, value: Any) -> Any:
        return value if isinstance(value, str) else bytes(value)

    def watch(self, ids: Sequence[str], address: str, layout: str) -> None:
        """Let an address be told of these ends."""
        keys = [self.database.key(self.key_of(id, layout)) for id in dict.fromkeys(ids)]
        for start in range(0, len(keys), _CHUNK):
            names, values = _named(keys[start : start + _CHUNK])
            rows = ", ".join(f"({name}, %(address)s, @@now + {WATCHED})" for name in names)
            values["address"] = self.database.key(address)
            sql = self.database.ignoring(f"INSERT INTO @watch (id, address, expires) VALUES {rows}")
            self.database.run(lambda s, sql=sql, values=values: s.rows(sql, values))  # type: ignore[misc]

    def unwatch(self, address: str) -> None:
        """Tell an address no more."""
        sql = self.database.sql("DELETE FROM @watch WHERE address = %(address)s")
        self.database.run(lambda s: s.rows(sql, {"address": self.database.key(address)}))

    def read(
        self, ids: Sequence[str], *, final: bool = False, layout: str = ""
    ) -> Mapping[str, bytes]:
        return self._call(self.read_here, ids, final, layout)

    def read_here(self, ids: Sequence[str], final: bool, layout: str) -> dict[str, bytes]:
        """As `read`, in the caller's own native thread."""
        keys = {self.database.key(self.key_of(id, layout)): id for id in ids}
        found: dict[str, bytes] = {}
        every = list(keys)
        for start in range(0, len(every), _CHUNK):
            names, values = _named(every[start : start + _CHUNK])
            sql = f"SELECT id, body FROM @result WHERE {_ENDS.format(ids=', '.join(names))}"
            sql = self.database.sql(sql + f" AND final >= {int(final)}")
            rows = self.database.run(lambda s, sql=sql, values=values: s.rows(sql, values))  # type: ignore[misc]
            found |= {keys[self._key_in(id)]: bytes(body) for id, body in rows}
        return found

    def forget(self, ids: Sequence[str], *, layout: str = "") -> int:
        if not ids:
            return 0
        names, values = _named([self.database.key(self.key_of(id, layout)) for id in set(ids)])
        sql = self.database.sql(f"DELETE FROM @result WHERE {_ENDS.format(ids=', '.join(names))}")
        return int(self._call(self.database.run, lambda s: s.count(sql, values)))

    def inbox(
        self,
        deliver: Callable[[str, bytes], None],
        pending: Callable[[], Sequence[str]],
        *,
        layout: str = "",
    ) -> Inbox:
        return SqlInbox(self, guarded(deliver), pending, layout, self._call)

    def _tidy(self) -> None:
        """Now and then, forget what has expired."""
        if time.monotonic() < self._tidied + TIDY:
            return
        self._tidied = time.monotonic()
        with suppress(FsdfError):  # another time
            for table in ("result", "watch", "mark", "notice"):
                self.database.run(lambda s, table=table: expire(self.database, s, table))  # type: ignore[misc]

    def close(self) -> None:
        self._call(self.database.close)
        self._call.close()

    def marks(self) -> Marks:
        return self._marks

    def groups(self) -> GroupStore:
        return self._groups


_AGAIN = " ON DUPLICATE KEY UPDATE " + ", ".join(
    f"{name} = VALUES({name})" for name in _COLUMNS.split(", ")[1:]
)


def expire(database: SqlDatabase, session: Session, table: str) -> None:
    """Delete what of a table has expired, some of it."""
    those = "expires <= @@now LIMIT 10000"
    if database.is_postgresql:
        inner = f"SELECT ctid FROM @{table} WHERE {those} FOR UPDATE SKIP LOCKED"
        those = f"ctid IN ({inner})"
    session.rows(database.sql(f"DELETE FROM @{table} WHERE {those}"))


def _named(keys: Sequence[Any]) -> tuple[list[str], dict[str, Any]]:
    """Return placeholders for keys, and their values."""
    return [f"%(k{n})s" for n in range(len(keys))], {f"k{n}": key for n, key in enumerate(keys)}


def _record(row: Row) -> Record:
    _, sends, deliveries, attempt, final, _, body, origin = row
    return Record("", body, deliveries, bool(final), sends=sends, origin=origin, attempt=attempt)


def _apart(records: Sequence[Record], key: Callable[[Record], str]) -> list[list[Record]]:
    """Return batches in order, none of which has two records of one key, or too many."""
    batches: list[list[Record]] = []
    seen: set[str] = set()
    size = 0
    for record in records:
        here = key(record)
        if not batches or here in seen or len(seen) >= _CHUNK or size > 4 << 20:
            batches.append([])
            seen, size = set(), 0
        seen.add(here)
        size += len(record.body)
        batches[-1].append(record)
    return batches
