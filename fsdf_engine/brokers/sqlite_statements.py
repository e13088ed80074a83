"""What the SQLite broker asks its file."""

from __future__ import annotations

from .sqlite_rows import ODD

# Statements take the named values their callers give; each says what it costs.
INSERT = """
INSERT INTO message (queue, id, body, priority, due, headers, published)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""  # O(log n)
INSERT_FIRST = """
INSERT INTO message (seq, queue, id, body, priority, due, headers, published)
VALUES ((SELECT min(seq) - 1 FROM message), ?, ?, ?, ?, ?, ?, ?)
"""  # O(log n)
EARLIER = "SELECT 1 FROM message WHERE queue = ? AND due > 0 AND due <= ? LIMIT 1"  # O(log n)
PROMOTE = """
UPDATE message SET due = 0 WHERE seq IN (
    SELECT seq FROM message WHERE queue = ? AND due > 0 AND due <= ? ORDER BY due LIMIT ?)
"""  # O(moved log n)
ENDED = """
SELECT token, CASE WHEN json_valid(seqs) THEN seqs ELSE '[]' END FROM lease
WHERE queue = ? AND ends <= ?
"""  # O(found)
RETURN = """
UPDATE message SET due = 0, lease = NULL, deliveries = coalesce(deliveries, 0) + 1
WHERE lease = ? AND seq IN (SELECT value FROM json_each(?))
"""  # O(batch log n)
WAITING = """
SELECT seq, id, CAST(body AS BLOB), deliveries, state, headers, published, priority FROM message
WHERE queue = ? AND due = 0 ORDER BY priority DESC, seq LIMIT ?
"""  # O(limit)
DELAYED = """
SELECT CAST(id AS TEXT), CAST(body AS BLOB), headers, CAST(priority AS INTEGER), due FROM message
WHERE queue = ? AND due > 0 AND due < '' ORDER BY due LIMIT ?
"""  # O(log n + limit)
LEASE = "INSERT INTO lease (token, ends, queue, count, seqs) VALUES (?, ?, ?, ?, ?)"
RELEASE = "UPDATE message SET due = ?, state = ?, lease = NULL WHERE lease = ? AND seq = ?"
BURY = """
INSERT INTO dead (queue, id, priority, published, headers, body, at, reason, trace)
SELECT queue, id, priority, published, headers, body, ?, ?, ? FROM message
WHERE lease = ? AND seq = ?
"""  # O(log n)
BURY_ONCE = """
INSERT INTO dead (queue, id, priority, headers, body, at, reason, trace)
SELECT :queue, :id, :priority, :headers, :body, :at, :reason, :trace
WHERE NOT EXISTS (
    SELECT 1 FROM dead WHERE queue = :queue AND id = :id AND CAST(body AS BLOB) = :body)
"""  # O(log n + letters of this id)
NEXT = f"""
SELECT (SELECT 0 FROM message WHERE queue = :queue AND due = 0 LIMIT 1),
    (SELECT 0 FROM message WHERE queue = :queue AND ({ODD}) LIMIT 1),
    (SELECT min(due) FROM message WHERE queue = :queue AND due > 0 AND due < ''),
    (SELECT min(ends) FROM lease WHERE queue = :queue AND ends < '')
"""  # O(log n)
# What is due, or whose lease has ended, waits, whether a fetch has noticed or not.
SIZE = f"""
SELECT (SELECT count(*) FROM message WHERE queue = :queue AND due = 0)
    + (SELECT count(*) FROM message WHERE queue = :queue AND due > 0 AND due <= :now)
    + (SELECT count(*) FROM message WHERE queue = :queue AND ({ODD}))
    + (SELECT coalesce(sum(count), 0) FROM lease WHERE queue = :queue AND ends <= :now),
    (SELECT count(*) FROM message WHERE queue = :queue AND due > :now AND due > 0 AND due < ''),
    (SELECT coalesce(sum(count), 0) FROM lease WHERE queue = :queue AND ends > :now),
    (SELECT count(*) FROM dead WHERE queue = :queue)
"""  # O(n) over index pages only
# Each distinct queue is the least above the one before it. CAST: a name that is no text harms none.
QUEUES = " UNION ".join(
    f"""SELECT CAST(q AS BLOB) FROM (WITH RECURSIVE each(q) AS (
        SELECT min(queue) FROM {rows} UNION ALL
        SELECT (SELECT min(queue) FROM {rows} AND queue > q) FROM each WHERE q IS NOT NULL)
        SELECT q FROM each WHERE typeof(q) = 'text')"""
    for rows in ("message WHERE due = 0", "message WHERE due > 0", "lease WHERE 1", "dead WHERE 1")
)  # O(queues log n)
PURGE_LEASED = """
DELETE FROM message WHERE lease IN (SELECT token FROM lease WHERE queue = :queue) AND seq IN (
    SELECT value FROM lease, json_each(CASE WHEN json_valid(seqs) THEN seqs ELSE '[]' END)
    WHERE lease.queue = :queue)
"""  # O(leased log n)
REPLAY = """
INSERT INTO message (queue, body, priority, headers, published)
SELECT queue, again(CAST(coalesce(body, '') AS BLOB), headers), coalesce(priority, 0), headers,
    published
FROM dead WHERE queue = ? AND (? IS NULL OR seq IN (SELECT value FROM json_each(?))) ORDER BY seq
"""  # O(dead of the queue)
REPLAYED = """
DELETE FROM dead WHERE queue = ? AND (? IS NULL OR seq IN (SELECT value FROM json_each(?)))
"""
