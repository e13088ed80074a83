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
from functools import cached_property, partial
from typing import Any, ClassVar

import orjson

from ..contracts import (
    Again,
    Broker,
    Capability,
    DeadMessage,
    Delivery,
    LeaseId,
    Letter,
    Outgoing,
    Part,
    QueueSize,
    Settlement,
    Subscription,
    Transactions,
    unchanged,
)  # fmt: skip
from ..errors import BrokerError, FsdfError, PublishError
from ..outcomes import Ack, DeadLetter, Release
from . import sqlite_statements as statement
from .sqlite_file import PATIENCE, SqliteFile, span
from .sqlite_grace import Grace
from .sqlite_rows import MEND, READABLE, delivery, letter, message, replayed, waiting
from .wakeup import Waiter

__all__ = ["SqliteBroker"]

LOOK = 5.0  # seconds; a process killed between its ring and its fetch delays others so long
_PROMOTED = 2000  # delayed messages that one fetch makes ready


class SqliteBroker(Broker):
    """Messages in one SQLite file. `url` is its path; the folder is made if it is missing."""

    capabilities: Capability = (
        Capability.LEASE | Capability.DELAY | Capability.PRIORITY | Capability.DEAD_LETTER
        | Capability.SIZE | Capability.SHARED | Capability.ORDERED
        | Capability.PULL | Capability.TIMED | Capability.COUNTED | Capability.BROWSE
        | Capability.ATOMIC | Capability.SIZE_LEASED | Capability.LISTED
    )  # fmt: skip
    setting: ClassVar[str] = "SQLITE_PATH"

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        """Take the path; `patience` is how long to wait for another program's transaction."""
        super().__init__(url)
        self.file = SqliteFile.shared(url, patience)

    @property
    def address(self) -> str:
        return self.file.path

    @cached_property
    def transactions(self) -> Transactions:  # type: ignore[override]
        """Those of SQLAlchemy, which only they need."""
        from .sqlite_transactions import SqliteTransactions

        return SqliteTransactions(self.file)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        now = time.time()
        rows, first = [message(item, now) for item in batch], []
        rung: dict[str, int] = {}
        try:
            with self.file.write_once() if len(rows) == 1 else self.file.write() as db:
                for item, row in zip(batch, rows):
                    if not (due := row[4]):
                        rung[item.queue] = rung.get(item.queue, 0) + 1
                        if item.not_before:
                            first.append(row)
                    elif item.queue not in rung and _is_earliest(db, item.queue, due):
                        rung[item.queue] = 1
                if first:
                    rows = [row for row in rows if all(row is not other for other in first)]
                    db.executemany(statement.INSERT_FIRST, first[::-1])
                db.executemany(statement.INSERT, rows)
        except BrokerError as error:
            if type(error) is not BrokerError:
                raise
            raise PublishError(batch) from error  # a value has no place here
        except (OverflowError, ValueError) as error:
            if isinstance(error, FsdfError):
                raise
            raise PublishError(batch) from error
        self.ring(rung)

    def ring(self, counts: dict[str, int]) -> None:
        """Wake up to so many waiters of each queue."""
        for queue, count in counts.items():
            self.file.wakeups.ring(queue, count)

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _SqliteSubscription(self, queue, lease)

    def size(self, queue: str) -> QueueSize:
        with self.file.read() as db:
            return QueueSize(
                *db.execute(statement.SIZE, {"queue": queue, "now": time.time()}).fetchone()
            )

    def queues(self) -> Sequence[str]:
        with self.file.read() as db:
            names = [
                name.decode(errors="replace") for (name,) in db.execute(statement.QUEUES).fetchall()
            ]
        return sorted(name for name in names if "\ufffd" not in name)

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        statements = {
            Part.WAITING: "DELETE FROM message WHERE queue = :queue AND due = 0",
            Part.DELAYED: "DELETE FROM message WHERE queue = :queue AND due > 0",
            Part.LEASED: statement.PURGE_LEASED,
            Part.DEAD: "DELETE FROM dead WHERE queue = :queue",
        }
        with self.file.write() as db:
            now = time.time()
            _return_ended(db, queue, now, -1, now)
            db.execute(MEND, {"queue": queue})
            chosen = [sql for part, sql in statements.items() if part in parts]
            count = sum(db.execute(sql, {"queue": queue}).rowcount for sql in chosen)
            if Part.LEASED in parts:
                db.execute("DELETE FROM lease WHERE queue = ?", (queue,))
        if count:
            self.file.shrink()
        return count

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        sql = """SELECT seq, CAST(coalesce(body, '') AS BLOB), CAST(coalesce(reason, '') AS TEXT),
            CAST(coalesce(trace, '') AS TEXT), CAST(coalesce(at, 0) AS REAL) FROM dead
            WHERE queue = ? ORDER BY seq DESC LIMIT ? OFFSET ?"""
        with self.file.read() as db:
            rows = db.execute(sql, (queue, limit, offset)).fetchall()
        return [DeadMessage(str(seq), *rest) for seq, *rest in rows]

    def delayed(self, queue: str, limit: int = 100) -> Sequence[Outgoing]:
        with self.file.read() as db:
            rows = db.execute(statement.DELAYED, (queue, limit)).fetchall()
        return [waiting(queue, row) for row in rows]

    def bury(self, batch: Sequence[Letter]) -> None:
        now = time.time()
        with self.file.write() as db:
            db.executemany(statement.BURY_ONCE, [letter(item, now) for item in batch])

    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        chosen = None
        if ids is not None:
            numbers = [int(id) for id in ids if id.isdecimal() and len(id) < 19]
            chosen = orjson.dumps(numbers).decode()
        with self.file.write() as db:
            db.create_function("again", 2, partial(replayed, again))
            count = db.execute(statement.REPLAY, (queue, chosen, chosen)).rowcount
            db.execute(statement.REPLAYED, (queue, chosen, chosen))
        self.ring({queue: count})
        return count

    def check(self) -> None:
        with self.file.write():
            pass

    def close(self) -> None:
        self.file.close()


class _SqliteSubscription(Subscription):
    def __init__(self, broker: SqliteBroker, queue: str, lease: float) -> None:
        self._broker, self._file = broker, broker.file
        self._queue, self._lease = queue, lease
        self._waiter: Waiter | None = None
        self._woken = False
        self._mend_at = time.time() + LOOK  # when odd rows join the line at the latest
        self._grace = Grace(broker.file, lease)

    def _wakeups(self) -> Waiter:
        """This process's place to be rung at."""
        wakeups = self._file.wakeups
        if self._waiter is None or not self._waiter.rings(wakeups):
            self.close()
            with self._file.translating():
                self._waiter = Waiter(wakeups, self._queue)
        return self._waiter

    def wait(self, timeout: float) -> None:
        waiter, end = self._wakeups(), time.time() + min(timeout, LOOK)
        waiter.arm()
        waiter.block(0.0)  # rings for what the last fetches found
        try:
            while not self._woken:
                with self._file.read() as db:
                    *times, ends = db.execute(statement.NEXT, {"queue": self._queue}).fetchone()
                now = time.time()
                if ends is not None:
                    times += (max(ends, now + self._grace.left()), now + self._grace.doubt())
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
        token = int.from_bytes(os.urandom(8), "big") >> 1
        with self._file.write() as db:
            now = time.time()  # it may have taken long to get there
            _return_ended(db, self._queue, now, _PROMOTED, self._grace.reapable(now))
            rows, more = self._take(db, limit, max_bytes)
            if not rows or now > self._mend_at:
                self._mend_at = now + LOOK
                if db.execute(MEND, {"queue": self._queue}).rowcount and not rows:
                    rows, more = self._take(db, limit, max_bytes)
            self.emptied = not more
            if not rows:
                return ()
            seqs = [row[0] for row in rows]
            condition, values = span(seqs)
            update = f"UPDATE message SET due = NULL, lease = ? WHERE {condition}"
            db.execute(update, (token, *values))
            held = orjson.dumps(seqs).decode()
            db.execute(statement.LEASE, (token, now + self._lease, self._queue, len(seqs), held))
        if more:  # whoever was rung for several messages wakes the next one
            self._file.wakeups.ring(self._queue)
        return [delivery(token, row) for row in rows]

    def _take(self, db: sqlite3.Connection, limit: int, room: int) -> tuple[list[Any], bool]:
        """Read the first in line; say whether there may be more."""
        try:
            return self._read(db, limit, room)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        db.text_factory = READABLE  # from now on: it costs a little
        return self._read(db, limit, room)

    def _read(self, db: sqlite3.Connection, limit: int, room: int) -> tuple[list[Any], bool]:
        rows: list[Any] = []
        cursor = db.execute(statement.WAITING, (self._queue, max(0, limit) + 1))
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
            self._file.wakeups.ring(self._queue, returned)
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
    return db.execute(statement.EARLIER, (queue, due)).fetchone() is None


def _return_ended(
    db: sqlite3.Connection, queue: str, now: float, limit: int, before: float
) -> None:
    """Put in line what is due (at most `limit`) and what leases held that ended before then."""
    db.execute(statement.PROMOTE, (queue, now, limit))
    for token, seqs in db.execute(statement.ENDED, (queue, before)).fetchall():
        db.execute(statement.RETURN, (token, seqs))
        db.execute("DELETE FROM lease WHERE token = ?", (token,))


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
            return db.execute(statement.RELEASE, (due, kept, token, seq)).rowcount > 0
        case DeadLetter(reason, trace):
            db.execute(statement.BURY, (time.time(), reason, trace, token, seq))
    return bool(_delete(db, token, [seq]))
