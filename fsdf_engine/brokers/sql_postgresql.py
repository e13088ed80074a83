"""The steps on PostgreSQL: one statement each, so one round trip; to bury takes four.

`UPDATE .. RETURNING` gives rows in any order; whoever takes them sorts them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .sql_rows import Ending, MessageRow
from .sql_session import Row, Session
from .sql_steps import ALONE, LEASED, Steps

__all__ = ["PostgresSteps", "channel_of"]

# Values: a list for each column. O(batch log n).
_INSERT = """
INSERT INTO @message (queue, id, body, priority, due, spot, headers, published)
SELECT m.queue, m.id, m.body, m.priority,
    CASE WHEN m.delay > 0 THEN t.now + m.delay WHEN m.instant > t.now THEN m.instant ELSE 0 END,
    CASE WHEN m.instant > 0 AND m.instant <= t.now THEN m.place - (t.now * 1e6)::bigint ELSE 0 END,
    m.headers, CASE WHEN m.published > 0 THEN m.published ELSE t.now END
FROM unnest(%(queue)s::text[], %(id)s::text[], %(body)b::bytea[], %(priority)s::smallint[],
    %(delay)s::float8[], %(not_before)s::float8[], %(headers)s::text[], %(published)s::float8[])
    WITH ORDINALITY AS m (queue, id, body, priority, delay, instant, headers, published, place),
    (SELECT @@now AS now) AS t
ORDER BY m.place
"""
# Values: queue, limit, room (bytes), token, lease (seconds). O(limit): by an array, for the planner
# takes a limit that it does not know for a tenth of the queue, and would read the table to join it.
_CLAIM = f"""
WITH line AS MATERIALIZED (
    SELECT seq, priority, spot, octet_length(body) AS size FROM @message
    WHERE queue = %(queue)s AND due = 0 ORDER BY priority DESC, spot, seq
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
fitting AS MATERIALIZED (
    SELECT seq FROM (
        SELECT seq, sum(size) OVER (ORDER BY priority DESC, spot, seq) - size AS before FROM line
    ) AS summed WHERE before < %(room)s),
leased AS (
    UPDATE @message AS m SET due = NULL, lease = %(token)s
    WHERE m.seq = ANY (ARRAY(SELECT seq FROM fitting)) RETURNING m.*),
made AS (
    INSERT INTO @lease (token, queue, ends, count, seqs)
    SELECT %(token)s, %(queue)s, @@now + %(lease)s, count(*), string_agg(seq::text, ',')
    FROM fitting HAVING count(*) > 0)
SELECT {LEASED}, (SELECT count(*) FROM line) FROM leased
"""
# Values: tokens, and a list for each column of what is acked, released and buried. Leases first:
# who reaps has them locked, and waits for messages. O(batch log n).
_SETTLE = """
WITH lease AS MATERIALIZED (
    SELECT token FROM @lease WHERE token = ANY (%(tokens)s::bigint[]) ORDER BY token FOR UPDATE),
acked AS (
    DELETE FROM @message AS m USING lease,
        unnest(%(acked_0)s::bigint[], %(acked_1)s::bigint[]) AS a (token, seq)
    WHERE lease.token = a.token AND m.seq = a.seq AND m.lease = a.token
    RETURNING a.token, m.seq),
released AS (
    UPDATE @message AS m SET lease = NULL, state = r.state,
        due = CASE WHEN r.delay > 0 THEN @@now + r.delay ELSE 0 END
    FROM lease, unnest(%(released_0)s::bigint[], %(released_1)s::bigint[],
        %(released_2)s::float8[], %(released_3)s::text[]) AS r (token, seq, delay, state)
    WHERE lease.token = r.token AND m.seq = r.seq AND m.lease = r.token
    RETURNING r.token, m.seq),
buried AS (
    DELETE FROM @message AS m USING lease,
        unnest(%(buried_0)s::bigint[], %(buried_1)s::bigint[], %(buried_2)s::text[],
            %(buried_3)s::text[]) AS b (token, seq, reason, trace)
    WHERE lease.token = b.token AND m.seq = b.seq AND m.lease = b.token
    RETURNING b.token, b.reason, b.trace, m.*),
kept AS (
    INSERT INTO @dead (queue, id, priority, published, headers, body, reason, trace)
    SELECT queue, id, priority, published, headers, body, reason, trace FROM buried ORDER BY seq),
ended AS (
    SELECT token, seq FROM acked UNION ALL SELECT token, seq FROM released
    UNION ALL SELECT token, seq FROM buried),
counted AS (
    UPDATE @lease AS l SET count = l.count - n.count
    FROM (SELECT token, count(*) AS count FROM ended GROUP BY token) AS n WHERE l.token = n.token)
SELECT token, seq FROM ended
"""
_ACK = """
WITH lease AS MATERIALIZED (
    SELECT token FROM @lease WHERE token = ANY (%(tokens)s::bigint[]) ORDER BY token FOR UPDATE),
acked AS (
    DELETE FROM @message AS m USING lease,
        unnest(%(acked_0)s::bigint[], %(acked_1)s::bigint[]) AS a (token, seq)
    WHERE lease.token = a.token AND m.seq = a.seq AND m.lease = a.token
    RETURNING a.token, m.seq),
counted AS (
    UPDATE @lease AS l SET count = l.count - n.count
    FROM (SELECT token, count(*) AS count FROM acked GROUP BY token) AS n WHERE l.token = n.token)
SELECT token, seq FROM acked
"""
_EXTEND = """
WITH lease AS MATERIALIZED (
    SELECT token FROM @lease WHERE token = ANY (%(tokens)s::bigint[]) ORDER BY token FOR UPDATE)
UPDATE @lease AS l SET ends = @@now + %(lease)s FROM lease WHERE l.token = lease.token
RETURNING l.token
"""
_BURY = """
INSERT INTO @dead (queue, id, priority, headers, body, reason, trace)
SELECT b.* FROM unnest(%(queue)s::text[], %(id)s::text[], %(priority)s::smallint[],
    %(headers)s::text[], %(body)b::bytea[], %(reason)s::text[], %(trace)s::text[])
    AS b (queue, id, priority, headers, body, reason, trace)
WHERE NOT EXISTS (
    SELECT 1 FROM @dead AS d WHERE d.queue = b.queue AND left(d.id, 64) = left(b.id, 64)
    AND d.id = b.id AND d.body = b.body)
"""
# Wake some who wait in a queue at an instant: of each the row goes, so that it is told once, and
# those whose connection is gone are passed over. Values: queue, due, delay, most, channel.
_RING = """
WITH rung AS (
    DELETE FROM @waiter WHERE token IN (
        SELECT token FROM @waiter AS w WHERE queue = %(queue)s
        AND until > greatest(@@now, %(due)s, CASE WHEN %(delay)s > 0 THEN @@now + %(delay)s END)
        AND EXISTS (SELECT 1 FROM pg_stat_get_activity(w.pid))
        LIMIT %(most)s FOR UPDATE SKIP LOCKED)
    RETURNING token)
SELECT pg_notify(%(channel)s, token::text) FROM rung
"""
_REGISTER = """
INSERT INTO @waiter (token, queue, pid, until)
VALUES (%(token)s, %(queue)s, %(pid)s, @@now + %(life)s)
ON CONFLICT (token) DO UPDATE SET until = excluded.until, pid = excluded.pid
"""


def channel_of(queue: str) -> str:
    """Return the channel on which those who wait in a queue are told."""
    import hashlib

    return "fsdf_" + hashlib.blake2b(queue.encode(), digest_size=12).hexdigest()


class PostgresSteps(Steps):
    """See `Steps`."""

    notifies = True

    def insert(self, session: Session, rows: Sequence[MessageRow]) -> None:
        columns = zip(MessageRow._fields, map(list, zip(*rows)))
        session.rows(self.sql(_INSERT), dict(columns))

    def claim(
        self, session: Session, queue: str, limit: int, room: int, token: int, lease: float
    ) -> tuple[list[Row], bool]:
        rows = session.rows(self.sql(_CLAIM), {
            "queue": queue, "limit": limit, "room": room, "token": token, "lease": lease,
        })  # fmt: skip
        return [row[:-1] for row in rows], bool(rows) and (
            rows[0][-1] == limit or len(rows) < rows[0][-1]
        )

    def settle(self, session: Session, ending: Ending) -> Collection[tuple[int, int]]:
        values: dict[str, Any] = {"tokens": ending.tokens()}
        for name, part, width in (("acked", ending.acked, 2), ("released", ending.released, 4),
                                  ("buried", ending.buried, 4)):  # fmt: skip
            for place in range(width):
                values[f"{name}_{place}"] = [row[place] for row in part]
        sql = _SETTLE if ending.released or ending.buried else _ACK
        return {(row[0], row[1]) for row in session.rows(self.sql(sql), values)}

    def extend(self, session: Session, tokens: Sequence[int], lease: float) -> Collection[int]:
        values = {"tokens": list(tokens), "lease": lease}
        return {row[0] for row in session.rows(self.sql(_EXTEND), values)}

    def bury(self, session: Session, letters: Sequence[Mapping[str, Any]]) -> None:
        columns = {name: [row[name] for row in letters] for name in letters[0]}
        with session.transaction():
            session.rows(self.sql(ALONE))
            session.rows(self.sql(_BURY), columns)

    def ring(self, session: Session, queue: str, most: int, due: float, delay: float) -> None:
        session.rows(self.sql(_RING), {
            "queue": queue, "most": most, "due": due, "delay": delay, "channel": channel_of(queue),
        })  # fmt: skip

    def register(self, session: Session, token: int, queue: str, pid: int, life: float) -> None:
        values = {"token": token, "queue": queue, "pid": pid, "life": life}
        session.rows(self.sql(_REGISTER), values)

    def unregister(self, session: Session, token: int) -> None:
        session.rows(self.sql("DELETE FROM @waiter WHERE token = %(token)s"), {"token": token})
