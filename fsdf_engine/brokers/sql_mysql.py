"""The steps on MariaDB and MySQL: several statements in a round trip, two round trips for most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .sql_rows import Ending, MessageRow, listed
from .sql_session import Row, Session, Values
from .sql_steps import ALONE, LEASED, Steps

__all__ = ["MySqlSteps"]

_NONE: Values = {}
# As floating-point number: what is computed with decimals, the driver would give as such.
_INSERT = """
INSERT INTO @message (queue, id, body, priority, headers, due, spot, published) VALUES
"""
_LINE = """
SELECT seq, length(body) FROM @message WHERE queue = %(queue)s AND due = 0
ORDER BY priority DESC, spot, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
_LEASE = """
INSERT INTO @lease (token, queue, ends, count, seqs)
VALUES (%(token)s, %(queue)s, @@now + %(lease)s, %(count)s, %(seqs)s)
"""
_BURY = """
INSERT INTO @dead (queue, id, priority, published, died, headers, body, reason, trace)
SELECT queue, id, priority, published, @@now, headers, body, %(reason)s, %(trace)s
FROM @message WHERE seq = %(seq)s
"""
_BURY_ONCE = """
INSERT INTO @dead (queue, id, priority, died, headers, body, reason, trace)
SELECT %(queue)s, %(id)s, %(priority)s, @@now, %(headers)s, %(body)s, %(reason)s, %(trace)s
FROM (SELECT 1 AS one) AS once WHERE NOT EXISTS (
    SELECT 1 FROM @dead WHERE queue = %(queue)s AND id = %(id)s AND body = %(body)s)
"""


class MySqlSteps(Steps):
    """See `Steps`."""

    def key(self, queue: str) -> Any:
        return queue.encode()

    def name(self, key: Any) -> str:
        return bytes(key).decode(errors="backslashreplace")

    def insert(self, session: Session, rows: Sequence[MessageRow]) -> None:
        values: dict[str, Any] = {}
        parts = []
        for n, row in enumerate(rows):
            for name in ("queue", "id", "body", "priority", "headers"):
                values[f"{name}{n}"] = getattr(row, name)
            values[f"queue{n}"] = self.key(row.queue)
            due, spot = "0", "0"
            if row.delay:
                due = f"@@now + {row.delay!r}"
            elif row.not_before:
                due = f"if(@@now < {row.not_before!r}, {row.not_before!r}, 0)"
                spot = f"if(@@now < {row.not_before!r}, 0, {n} - floor(@@now * 1000000))"
            at = repr(row.published) if row.published else "@@now"
            parts.append(
                f"(%(queue{n})s, %(id{n})s, %(body{n})s, %(priority{n})s, %(headers{n})s, {due},"
                f" {spot}, {at})"
            )
        session.rows(self.sql(_INSERT + ", ".join(parts)), values)

    def claim(
        self, session: Session, queue: str, limit: int, room: int, token: int, lease: float
    ) -> tuple[list[Row], bool]:
        key = self.key(queue)
        line = session.many(("BEGIN", _NONE), (self.sql(_LINE), {"queue": key, "limit": limit}))[-1]
        seqs: list[int] = []
        for seq, size in line:
            if room <= 0:
                break
            seqs.append(seq)
            room -= size
        if not seqs:
            session.rows("COMMIT")
            return [], False
        update = f"UPDATE @message SET due = NULL, lease = {token} WHERE seq IN ({listed(seqs)})"
        held = {"token": token, "queue": key, "lease": lease, "count": len(seqs),
                "seqs": ",".join(map(str, seqs))}  # fmt: skip
        read = f"SELECT {LEASED} FROM @message WHERE seq IN ({listed(seqs)})"
        rows = session.many(
            (self.sql(read), _NONE), (self.sql(update), _NONE), (self.sql(_LEASE), held),
            ("COMMIT", _NONE),
        )[0]  # fmt: skip
        return rows, len(line) == limit or len(seqs) < len(line)

    def settle(self, session: Session, ending: Ending) -> Collection[tuple[int, int]]:
        named: defaultdict[int, list[int]] = defaultdict(list)
        for part in ending:
            for row in part:
                named[row[0]].append(row[1])
        those = " OR ".join(f"lease = {t} AND seq IN ({listed(s)})" for t, s in named.items())
        tokens = listed(ending.tokens())
        *_, found = session.many(
            ("BEGIN", _NONE),
            (self.sql(f"SELECT token FROM @lease WHERE token IN ({tokens}) FOR UPDATE"), _NONE),
            (self.sql(f"SELECT lease, seq FROM @message WHERE {those} FOR UPDATE"), _NONE),
        )
        ours = {(row[0], row[1]) for row in found}
        statements = self._endings(ending, ours)
        session.many(*((self.sql(sql), values) for sql, values in statements), ("COMMIT", _NONE))
        return ours

    def _endings(
        self, ending: Ending, ours: set[tuple[int, int]]
    ) -> list[tuple[str, dict[str, Any]]]:
        statements: list[tuple[str, dict[str, Any]]] = []
        gone = [seq for token, seq in ending.acked if (token, seq) in ours]
        for token, seq, delay, state in ending.released:
            if (token, seq) in ours:
                due = f"@@now + {delay!r}" if delay else "0"
                sql = f"UPDATE @message SET lease = NULL, due = {due}, state = %(state)s"
                statements.append((f"{sql} WHERE seq = {seq}", {"state": state}))
        for token, seq, reason, trace in ending.buried:
            if (token, seq) in ours:
                statements.append((_BURY, {"seq": seq, "reason": reason, "trace": trace}))
                gone.append(seq)
        if gone:
            statements.append((f"DELETE FROM @message WHERE seq IN ({listed(gone)})", {}))
        counts: defaultdict[int, int] = defaultdict(int)
        for token, _ in ours:
            counts[token] += 1
        for token, count in sorted(counts.items()):
            sql = f"UPDATE @lease SET count = count - {count} WHERE token = {token}"
            statements.append((sql, {}))
        if counts:
            sql = f"DELETE FROM @lease WHERE token IN ({listed(sorted(counts))}) AND count <= 0"
            statements.append((sql, {}))
        return statements

    def extend(self, session: Session, tokens: Sequence[int], lease: float) -> Collection[int]:
        those = f"token IN ({listed(sorted(tokens))})"
        found = session.many(
            ("BEGIN", _NONE),
            (self.sql(f"SELECT token FROM @lease WHERE {those} FOR UPDATE"), _NONE),
            (self.sql(f"UPDATE @lease SET ends = @@now + {lease!r} WHERE {those}"), _NONE),
            ("COMMIT", _NONE),
        )[1]
        return {row[0] for row in found}

    def bury(self, session: Session, letters: Sequence[Mapping[str, Any]]) -> None:
        sql = self.sql(_BURY_ONCE)
        session.many(
            ("BEGIN", _NONE),
            (self.sql(ALONE), _NONE),
            *((sql, {**row, "queue": self.key(row["queue"])}) for row in letters),
            ("COMMIT", _NONE),
        )
