"""SQLite broker: durable, exact, shared between the processes of one machine.

A fetch makes one lease for all it takes: one row in `lease` with the deadline. Extending it is one
small update however many messages it covers, a settle deletes ranges of rows, and a lease that has
ended by time is found without looking at messages. Deadlines are of `time.time()`, the one clock
of the machine. A crash of a process loses nothing; after a power cut the last moments may be
missing (`synchronous=NORMAL`), but the file is sound.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import orjson

from ..contracts import (
    Broker,
    Capability,
    DeadMessage,
    Delivery,
    LeaseId,
    Outgoing,
    Part,
    QueueSize,
    Settlement,
    Subscription,
)  # fmt: skip
from ..errors import FsdfError, PublishError
from ..outcomes import Ack, DeadLetter, Release
from .bell import Waiter
from .sqlite_file import PATIENCE, SqliteFile, span

__all__ = ["SqliteBroker"]

LOOK = 5.0  # seconds; a process killed between its ring and its fetch delays others so long
_PROMOTED = 2000  # delayed messages that one fetch makes ready

# Statements take the named values their callers give; each says what it costs.
_INSERT = """
INSERT INTO message (queue, id, body, priority, due, headers, published)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""  # O(log n)
_EARLIER = "SELECT 1 FROM message WHERE queue = ? AND due > 0 AND due <= ? LIMIT 1"  # O(log n)
_PROMOTE = """
UPDATE message SET due = 0 WHERE seq IN (
    SELECT seq FROM message WHERE queue = ? AND due > 0 AND due <= ? ORDER BY due LIMIT ?)
"""  # O(moved log n)
_ENDED = "SELECT token, seqs FROM lease WHERE queue = ? AND ends <= ?"  # O(found)
_RETURN = """
UPDATE message SET due = 0, lease = NULL, deliveries = deliveries + 1
WHERE lease = ? AND seq IN (SELECT value FROM json_each(?))
"""  # O(batch log n)
_WAITING = """
SELECT seq, id, body, deliveries, state, headers, published FROM message
WHERE queue = ? AND due = 0 ORDER BY priority DESC, seq LIMIT ?
"""  # O(limit)
_LEASE = "INSERT INTO lease (token, ends, queue, count, seqs) VALUES (?, ?, ?, ?, ?)"
_RELEASE = "UPDATE message SET due = ?, state = ?, lease = NULL WHERE lease = ? AND seq = ?"
_BURY = """
INSERT INTO dead (queue, id, priority, published, headers, body, at, reason, trace)
SELECT queue, id, priority, published, headers, body, ?, ?, ? FROM message
WHERE lease = ? AND seq = ?
"""  # O(log n)
_NEXT = """
SELECT (SELECT 0 FROM message WHERE queue = :queue AND due = 0 LIMIT 1),
    (SELECT min(due) FROM message WHERE queue = :queue AND due > 0),
    (SELECT min(ends) FROM lease WHERE queue = :queue)
"""  # O(log n)
# What is due, or whose lease has ended, waits, whether a fetch has noticed or not.
_SIZE = """
SELECT (SELECT count(*) FROM message WHERE queue = :queue AND due = 0)
    + (SELECT count(*) FROM message WHERE queue = :queue AND due > 0 AND due <= :now)
    + (SELECT coalesce(sum(count), 0) FROM lease WHERE queue = :queue AND ends <= :now),
    (SELECT count(*) FROM message WHERE queue = :queue AND due > 0 AND due > :now),
    (SELECT coalesce(sum(count), 0) FROM lease WHERE queue = :queue AND ends > :now),
    (SELECT count(*) FROM dead WHERE queue = :queue)
"""  # O(n) over index pages only
_PURGE_LEASED = """
DELETE FROM message WHERE lease IN (SELECT token FROM lease WHERE queue = :queue) AND seq IN (
    SELECT value FROM lease, json_each(lease.seqs) WHERE lease.queue = :queue)
"""  # O(leased log n)
_REPLAY = """
INSERT INTO message (queue, id, body, priority, headers, published)
SELECT queue, id, body, priority, headers, published FROM dead
WHERE queue = ? AND (? IS NULL OR seq IN (SELECT value FROM json_each(?))) ORDER BY seq
"""  # O(dead of the queue)
_REPLAYED = """
DELETE FROM dead WHERE queue = ? AND (? IS NULL OR seq IN (SELECT value FROM json_each(?)))
"""


class SqliteBroker(Broker):
    """Messages in one SQLite file. `url` is its path; the folder is made if it is missing."""

    capabilities: ClassVar[Capability] = (
        Capability.LEASE | Capability.DELAY | Capability.PRIORITY | Capability.DEAD_LETTER
        | Capability.SIZE | Capability.SHARED | Capability.ORDERED
    )  # fmt: skip
    setting: ClassVar[str] = "SQLITE_PATH"

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        """Take the path; `patience` is how long to wait for another program's transaction."""
        super().__init__(url)
        self.file = SqliteFile.shared(url, patience)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        now = time.time()
        rows = [_row(item, now) for item in batch]
        rung: dict[str, int] = {}
        try:
            with self.file.write_once() if len(rows) == 1 else self.file.write() as db:
                for item, row in zip(batch, rows):
                    if not (due := row[4]):
                        rung[item.queue] = rung.get(item.queue, 0) + 1
                    elif item.queue not in rung and _is_earliest(db, item.queue, due):
                        rung[item.queue] = 1
                db.executemany(_INSERT, rows)
        except FsdfError:
            raise
        except (sqlite3.Error, OverflowError, ValueError) as error:  # a value has no place here
            raise PublishError(batch) from error
        self.ring(rung)

    def ring(self, counts: dict[str, int]) -> None:
        """Wake up to so many waiters of each queue."""
        for queue, count in counts.items():
            self.file.bell.ring(queue, count)

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _SqliteSubscription(self, queue, lease)

    def size(self, queue: str) -> QueueSize:
        with self.file.read() as db:
            return QueueSize(*db.execute(_SIZE, {"queue": queue, "now": time.time()}).fetchone())

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        statements = {
            Part.WAITING: "DELETE FROM message WHERE queue = :queue AND due = 0",
            Part.DELAYED: "DELETE FROM message WHERE queue = :queue AND due > 0",
            Part.LEASED: _PURGE_LEASED,
            Part.DEAD: "DELETE FROM dead WHERE queue = :queue",
        }
        with self.file.write() as db:
            _return_ended(db, queue, time.time(), -1)
            chosen = [sql for part, sql in statements.items() if part in parts]
            count = sum(db.execute(sql, {"queue": queue}).rowcount for sql in chosen)
            if Part.LEASED in parts:
                db.execute("DELETE FROM lease WHERE queue = ?", (queue,))
        if count:
            self.file.shrink()
        return count

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        sql = """SELECT seq, body, reason, trace, at FROM dead WHERE queue = ?
            ORDER BY seq DESC LIMIT ? OFFSET ?"""
        with self.file.read() as db:
            rows = db.execute(sql, (queue, limit, offset)).fetchall()
        return [DeadMessage(str(seq), _bytes(body), *rest) for seq, body, *rest in rows]

    def replay(self, queue: str, ids: Collection[str] | None = None) -> int:
        chosen = None
        if ids is not None:
            chosen = orjson.dumps([int(id) for id in ids if id.isdecimal()]).decode()
        with self.file.write() as db:
            count = db.execute(_REPLAY, (queue, chosen, chosen)).rowcount
            db.execute(_REPLAYED, (queue, chosen, chosen))
        self.ring({queue: count})
        return count

    def check(self) -> None:
        with self.file.write():
            pass

    def close(self) -> None:
        self.file.close()


def _row(item: Outgoing, now: float) -> tuple[Any, ...]:
    due = 0.0
    if item.delay > 0:
        due = now + item.delay
    elif item.not_before > now:
        due = item.not_before
    headers = json.dumps(dict(item.headers)) if item.headers else None
    return item.queue, item.id, item.body, item.priority, due, headers, now


class _SqliteSubscription(Subscription):
    def __init__(self, broker: SqliteBroker, queue: str, lease: float) -> None:
        self._broker, self._file = broker, broker.file
        self._queue, self._lease = queue, lease
        self._waiter: Waiter | None = None
        self._woken = False

    def _bell(self) -> Waiter:
        """This process's place to be rung at."""
        if self._waiter is None or self._waiter.inherited:
            bell = self._file.bell
            with self._file.translating():
                self._waiter = Waiter(bell, self._queue)
        return self._waiter

    def wait(self, timeout: float) -> None:
        waiter, end = self._bell(), time.time() + min(timeout, LOOK)
        waiter.arm()
        waiter.block(0.0)  # rings for what the last fetches found
        try:
            while not self._woken:
                with self._file.read() as db:
                    times = db.execute(_NEXT, {"queue": self._queue}).fetchone()
                now = time.time()
                due = min([end, *(t for t in times if t is not None)])
                if due <= now:
                    break
                if waiter.block(0.0 if (idle := self._file.shrink()) else due - now) or not idle:
                    break
        finally:
            self._woken = False
            waiter.disarm()

    def wake(self) -> None:
        self._woken = True
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        now, token = time.time(), int.from_bytes(os.urandom(8), "big") >> 1
        with self._file.write() as db:
            _return_ended(db, self._queue, now, _PROMOTED)
            rows, more = self._take(db, limit, max_bytes)
            if not rows:
                return ()
            seqs = [row[0] for row in rows]
            condition, values = span(seqs)
            update = f"UPDATE message SET due = NULL, lease = ? WHERE {condition}"
            db.execute(update, (token, *values))
            held = orjson.dumps(seqs).decode()
            db.execute(_LEASE, (token, now + self._lease, self._queue, len(seqs), held))
        if more:  # whoever was rung for several messages wakes the next one
            self._file.bell.ring(self._queue)
        return [_delivery(token, row) for row in rows]

    def _take(self, db: sqlite3.Connection, limit: int, room: int) -> tuple[list[Any], bool]:
        """Read the first in line; say whether there may be more."""
        rows: list[Any] = []
        cursor = db.execute(_WAITING, (self._queue, max(0, limit) + 1))
        try:
            for row in cursor:
                if len(rows) >= limit or room <= 0:
                    return rows, True
                rows.append(row)
                room -= len(row[2])
            return rows, False
        finally:
            cursor.close()

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        acked: defaultdict[int, list[int]] = defaultdict(list)
        others: list[Settlement] = []
        for lease, verdict in batch:
            if type(verdict) is Ack:
                acked[lease[0]].append(lease[1])
            else:
                others.append((lease, verdict))
        lost: list[LeaseId] = []
        ended: defaultdict[int, int] = defaultdict(int)
        delays = [verdict.delay for _, verdict in others if type(verdict) is Release]
        returned = sum(delay <= 0 for delay in delays)
        with self._file.write() as db:
            if delays and not returned:
                returned = _is_earliest(db, self._queue, time.time() + min(delays))
            for token, seqs in acked.items():
                gone = _delete(db, token, seqs)
                ended[token] += len(gone)
                if len(gone) < len(seqs):
                    lost += [(token, seq) for seq in seqs if seq not in gone]
            for lease, verdict in others:
                if _end(db, lease, verdict):
                    ended[lease[0]] += 1
                else:
                    lost.append(lease)
            for token, count in ended.items():
                db.execute("UPDATE lease SET count = count - ? WHERE token = ?", (count, token))
                db.execute("DELETE FROM lease WHERE token = ? AND count <= 0", (token,))
        if returned:
            self._file.bell.ring(self._queue, returned)
        return lost

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        held: defaultdict[int, list[int]] = defaultdict(list)
        for token, seq in leases:
            held[token].append(seq)
        ends, kept = time.time() + self._lease, []
        with self._file.write() as db:
            for token, seqs in held.items():
                sql = "UPDATE lease SET ends = ? WHERE token = ?"
                if db.execute(sql, (ends, token)).rowcount:
                    condition, values = span(seqs)
                    sql = f"SELECT seq FROM message WHERE {condition} AND lease = ?"
                    kept += [(token, row[0]) for row in db.execute(sql, (*values, token))]
        return kept

    def close(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.close()


def _is_earliest(db: sqlite3.Connection, queue: str, due: float) -> bool:
    """Say whether a new instant precedes what is delayed: some waiter must set its clock anew."""
    return db.execute(_EARLIER, (queue, due)).fetchone() is None


def _return_ended(db: sqlite3.Connection, queue: str, now: float, limit: int) -> None:
    """Put in line what is due (at most `limit`) and what ended leases held."""
    db.execute(_PROMOTE, (queue, now, limit))
    for token, seqs in db.execute(_ENDED, (queue, now)).fetchall():
        db.execute(_RETURN, (token, seqs))
        db.execute("DELETE FROM lease WHERE token = ?", (token,))


def _bytes(body: bytes | str) -> bytes:
    """Return a body: it is text if SQL by hand has put it there."""
    return body if isinstance(body, bytes) else body.encode()


def _delivery(token: int, row: tuple[Any, ...]) -> Delivery:
    seq, id, body, deliveries, state, headers, published = row
    return Delivery(
        (token, seq),
        _bytes(body),
        id,
        deliveries,
        json.loads(state) if state else None,
        json.loads(headers) if headers else None,
        published,
    )


def _delete(db: sqlite3.Connection, token: int, seqs: Sequence[int]) -> set[int]:
    """Delete those of these rows that are leased by the token; return them. O(batch log n)."""
    condition, values = span(seqs)
    sql = f"DELETE FROM message WHERE {condition} AND lease = ? RETURNING seq"
    return {row[0] for row in db.execute(sql, (*values, token)).fetchall()}


def _end(db: sqlite3.Connection, lease: LeaseId, verdict: object) -> bool:
    """Release or bury one message; False if the lease was not ours. O(log n)."""
    token, seq = lease
    match verdict:
        case Release(delay, state):
            due = time.time() + delay if delay > 0 else 0.0
            kept = json.dumps(dict(state)) if state else None
            return db.execute(_RELEASE, (due, kept, token, seq)).rowcount > 0
        case DeadLetter(reason, trace):
            db.execute(_BURY, (time.time(), reason, trace, token, seq))
    return bool(_delete(db, token, [seq]))
