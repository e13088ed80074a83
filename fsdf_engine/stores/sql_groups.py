"""Groups in an SQL database. Whoever changes a group has its row locked; rows in order of ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

from ..brokers.sql_database import SqlDatabase
from ..brokers.sql_session import Session
from ..contracts import Claim, Completed, Group, GroupStore, Member
from ..offload import Offload
from .group_form import check_size, fitting, ordered, packed, tell_unknown, unpacked

__all__ = ["SqlGroups"]

T = TypeVar("T")
# barrier.done: when it was completed; until then no member is refused. `grown_by`: JSON, by key.
_STATE = """
SELECT name, size, grown, grown_by, count, bytes, life, done, holder, until, claims, closed,
    messages, run FROM @barrier WHERE id = %(id)s AND expires > @@now FOR UPDATE
"""
_NAMES = ("name", "size", "grown", "grown_by", "count", "bytes", "life", "done", "holder", "until",
          "claims", "closed", "messages", "run")  # fmt: skip
_OPEN = """
INSERT INTO @barrier (id, name, size, life, expires, messages, run, grown_by)
VALUES (%(id)s, %(name)s, %(size)s, %(life)s, @@now + %(life)s, %(messages)s, %(run)s, '{}')
"""
_ENDED = """
SELECT name FROM @barrier WHERE place = %(place)s AND until <= @@now AND done IS NOT NULL
    AND closed = 0 AND expires > @@now LIMIT %(limit)s
"""
_CLAIM = """
UPDATE @barrier SET done = %(done)s, place = %(place)s, holder = %(holder)s,
    until = @@now + %(lease)s, claims = claims + 1, expires = @@now + life WHERE id = %(id)s
"""
_EXPIRED = "SELECT id FROM @barrier WHERE expires <= @@now LIMIT 100 FOR UPDATE SKIP LOCKED"


class SqlGroups(GroupStore):
    """Tables beside the results."""

    def __init__(self, database: SqlDatabase, call: Offload) -> None:
        self._database, self._call = database, call
        self.sql, self.key = database.sql, database.key

    def _run(self, work: Callable[[Session], T]) -> T:
        def whole(session: Session) -> T:
            with session.transaction():
                for (id,) in session.rows(self.sql(_EXPIRED)):
                    self._forget(session, id)
                return work(session)

        value: T = self._call(self._database.run, whole)
        return value

    def _state(self, session: Session, id: str) -> dict[str, Any] | None:
        rows = session.rows(self.sql(_STATE), {"id": self.key(id)})
        return dict(zip(_NAMES, rows[0])) if rows else None

    def open(self, groups: Sequence[Group], claim: Claim) -> Sequence[Completed]:
        for g in groups:
            check_size(g.size or 0)

        def work(session: Session) -> list[Completed]:
            for g in sorted(groups, key=lambda g: g.id):
                self._open(session, g)
            return self._claimed(session, [g.id for g in groups], claim)

        return self._run(work)

    def _open(self, session: Session, g: Group) -> None:
        values = {
            "id": self.key(g.id), "name": g.id, "size": g.size, "life": min(g.expires, 1e12),
            "messages": packed(g.body, g.on_failure), "run": g.run,
        }  # fmt: skip
        found = self._state(session, g.id)
        is_over = found and (found["done"] is not None or found["closed"])
        if found and g.run and is_over and found["run"] != g.run:
            self._forget(session, self.key(g.id))
            found = None
        if found is None:
            session.rows(self._database.ignoring(_OPEN.strip()), values)
        elif g.run and not found["run"]:
            sql = "UPDATE @barrier SET run = %(run)s WHERE id = %(id)s"
            session.rows(self.sql(sql), {"run": g.run, "id": self.key(g.id)})

    def add(self, members: Sequence[Member], claim: Claim) -> Sequence[Completed]:
        groups: defaultdict[str, dict[str, Member]] = defaultdict(dict)
        for member in members:
            groups[member.group].setdefault(member.id, member)
        unknown: set[str] = set()

        def work(session: Session) -> list[Completed]:
            unknown.clear()
            for id in sorted(groups):
                if not self._add(session, id, groups[id]):
                    unknown.add(id)
            return self._claimed(session, list(groups), claim)

        completed = self._run(work)
        tell_unknown(unknown)
        return completed

    def _add(self, session: Session, id: str, members: dict[str, Member]) -> bool:
        state, key = self._state(session, id), self.key(id)
        if state is None:
            return False
        if state["done"] is None and not state["closed"]:
            there = {
                _key(row[0])
                for row in session.rows(
                    self.sql("SELECT id FROM @barrier_member WHERE barrier = %(id)s"), {"id": key}
                )
            }
            size, count = state["bytes"], 0
            for member in members.values():
                if self.key(member.id) not in there:
                    m = fitting(member, size)
                    size += len(m.body) if m is member else 0
                    count += 1
                    self._insert(session, key, m)
            sql = (
                "UPDATE @barrier SET count = count + %(count)s, bytes = %(bytes)s WHERE id = %(id)s"
            )
            session.rows(self.sql(sql), {"count": count, "bytes": size, "id": key})
        sql = "UPDATE @barrier SET expires = @@now + life WHERE id = %(id)s"
        session.rows(self.sql(sql), {"id": key})
        return True

    def _insert(self, session: Session, barrier: Any, m: Member) -> None:
        session.rows(self.sql("""INSERT INTO @barrier_member
            (barrier, id, name, place, failed, body)
            VALUES (%(barrier)s, %(id)s, %(name)s, %(place)s, %(failed)s, %(body)s)"""), {
            "barrier": barrier, "id": self.key(m.id), "name": m.id, "place": m.place,
            "failed": int(m.failed), "body": m.body,
        })  # fmt: skip

    def set_size(self, id: str, size: int, claim: Claim) -> Sequence[Completed]:
        check_size(size)

        def work(session: Session) -> tuple[bool, list[Completed]]:
            state = self._state(session, id)
            if state is not None and state["size"] is None:
                sql = "UPDATE @barrier SET size = %(size)s WHERE id = %(id)s"
                session.rows(self.sql(sql), {"size": size, "id": self.key(id)})
            return state is not None, self._claimed(session, [id], claim)

        is_there, completed = self._run(work)
        tell_unknown([] if is_there else [id])
        return completed

    def grow(self, id: str, by: int, key: str) -> bool:
        check_size(by, 1)

        def work(session: Session) -> bool:
            state = self._state(session, id)
            keys = orjson.loads(state["grown_by"]) if state else {}
            if state is None or (
                key not in keys and (state["done"] is not None or state["closed"])
            ):
                return False
            if key not in keys:
                keys[key] = by
                session.rows(self.sql("""UPDATE @barrier SET grown = grown + %(by)s,
                    grown_by = %(keys)s, expires = @@now + life WHERE id = %(id)s"""), {
                    "by": by, "keys": orjson.dumps(keys).decode(), "id": self.key(id),
                })  # fmt: skip
            return True

        return self._run(work)

    def claim(self, claim: Claim, limit: int = 100) -> Sequence[Completed]:
        def work(session: Session) -> list[Completed]:
            rows = session.rows(self.sql(_ENDED), {"place": claim.place, "limit": limit})
            return self._claimed(session, [row[0] for row in rows], claim)

        return self._run(work)

    def close(self, ids: Sequence[str], claim: Claim) -> None:
        def work(session: Session) -> None:
            for id in sorted(ids):
                state, values = self._state(session, id), {"id": self.key(id)}
                if state is not None and state["holder"] == claim.holder:
                    session.rows(
                        self.sql("""UPDATE @barrier SET closed = 1, messages = NULL,
                        expires = @@now + life WHERE id = %(id)s"""),
                        values,
                    )
                    sql = "DELETE FROM @barrier_member WHERE barrier = %(id)s"
                    session.rows(self.sql(sql), values)

        self._run(work)

    def _forget(self, session: Session, key: Any) -> None:
        session.rows(self.sql("DELETE FROM @barrier WHERE id = %(id)s"), {"id": key})
        session.rows(self.sql("DELETE FROM @barrier_member WHERE barrier = %(id)s"), {"id": key})

    def _claimed(self, session: Session, ids: Sequence[str], claim: Claim) -> list[Completed]:
        """Hand out what is complete, and nobody else's."""
        found: dict[str, Completed] = {}
        for id in sorted(set(ids)):
            state = self._state(session, id)
            if state is None or state["closed"] or not _is_complete(state):
                continue
            [(now,)] = session.rows(self.sql("SELECT @@now"))
            if state["until"] > now and state["holder"] != claim.holder:
                continue
            done = now if state["done"] is None else state["done"]
            session.rows(self.sql(_CLAIM), {
                **claim._asdict(), "done": done, "id": self.key(id),
            })  # fmt: skip
            rows = session.rows(
                self.sql("""SELECT name, body, failed, place FROM @barrier_member
                WHERE barrier = %(id)s"""),
                {"id": self.key(id)},
            )
            ended = ordered(Member(id, name, bytes(b), bool(f), p) for name, b, f, p in rows)
            found[id] = Completed(
                id, done, state["claims"] + 1, state["life"], *unpacked(bytes(state["messages"])),
                ended,
            )  # fmt: skip
        return [found[id] for id in dict.fromkeys(ids) if id in found]


def _is_complete(state: dict[str, Any]) -> bool:
    if state["done"] is not None:
        return True
    return state["size"] is not None and state["count"] >= state["size"] + state["grown"]


def _key(value: Any) -> Any:
    return value if isinstance(value, str) else bytes(value)
