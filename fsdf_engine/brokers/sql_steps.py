"""What is asked of an SQL server, step by step: what PostgreSQL and MySQL have in common.

Each step takes a session, and may be repeated as a whole. In statements `@table` is a table of ours
and `@@now` the server's time. Leases are locked before messages, in the order of their tokens.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ..contracts import Again, Part
from .sql_database import SqlDatabase
from .sql_rows import Ending, MessageRow, listed, numbers
from .sql_session import Row, Session
from .sqlite_rows import replayed

__all__ = ["ALONE", "LEASED", "Facts", "Steps"]

_CHUNK = 500  # rows that are moved at a time
LEASED = "seq, priority, spot, id, body, deliveries, state, headers, published"
# The clock is volatile: only as a value of its own does PostgreSQL look it up in an index.
# O(log n): of a queue, what there is, and when something comes.
_FACTS = """
SELECT @@now, EXISTS (SELECT 1 FROM @message WHERE queue = %(queue)s AND due = 0),
    (SELECT due FROM @message WHERE queue = %(queue)s AND due > 0 ORDER BY due LIMIT 1),
    (SELECT min(ends) FROM @lease WHERE queue = %(queue)s AND count > 0),
    EXISTS (SELECT 1 FROM @lease WHERE queue = %(queue)s AND count <= 0)
"""
_ENDED = """
SELECT token, seqs FROM @lease WHERE queue = %(queue)s AND {those}
ORDER BY token LIMIT 100 FOR UPDATE SKIP LOCKED
"""
_RETURN = """
UPDATE @message SET due = 0, lease = NULL, deliveries = deliveries + {lost}
WHERE seq IN ({seqs}) AND lease = {token}
"""
_DUE = """
SELECT seq FROM @message WHERE queue = %(queue)s AND due > 0 AND due <= (SELECT @@now)
ORDER BY due LIMIT 2000 FOR UPDATE SKIP LOCKED
"""
# What is due, or whose lease has ended, waits, whether a fetch has noticed or not.
_SIZE = """
SELECT (SELECT count(*) FROM @message WHERE queue = %(queue)s AND due <= t.now)
        + (SELECT coalesce(sum(count), 0) FROM @lease WHERE queue = %(queue)s AND ends <= t.now),
    (SELECT count(*) FROM @message WHERE queue = %(queue)s AND due > t.now),
    (SELECT coalesce(sum(count), 0) FROM @lease WHERE queue = %(queue)s AND ends > t.now),
    (SELECT count(*) FROM @dead WHERE queue = %(queue)s)
FROM (SELECT @@now AS now) AS t
"""  # O(n) over index pages
_QUEUES = """
SELECT queue FROM @message WHERE due IS NOT NULL UNION SELECT queue FROM @dead
UNION SELECT queue FROM @lease WHERE count > 0
"""
_DEAD = """
SELECT seq, body, reason, trace, died FROM @dead WHERE queue = %(queue)s
ORDER BY seq DESC LIMIT %(limit)s OFFSET %(offset)s
"""
_REPLAYED = """
SELECT seq, body, headers, priority, published FROM @dead
WHERE queue = %(queue)s AND seq > %(after)s {those} ORDER BY seq LIMIT {chunk} FOR UPDATE
"""


# Held by whoever buries: else two that do it at the same time would not see each other's rows.
ALONE = "SELECT format FROM @version FOR UPDATE"


class Facts(NamedTuple):
    """What a queue has, and when something comes; instants by the server's clock, or None."""

    now: float
    waits: bool
    due: float | None
    ends: float | None
    is_untidy: bool  # there are leases of which nothing is left


class Steps(ABC):
    """The steps of one database."""

    notifies: ClassVar[bool] = False  # who waits is told by the server, and need not look

    def __init__(self, database: SqlDatabase) -> None:
        self.sql = database.sql

    def ring(self, session: Session, queue: str, most: int, due: float, delay: float) -> None:
        """Wake up to so many who wait in a queue beyond this instant, where the server notifies."""

    def register(self, session: Session, token: int, queue: str, pid: int, life: float) -> None:
        """Be notified from now on, for `life` seconds."""

    def unregister(self, session: Session, token: int) -> None:
        """Be notified no more."""

    def key(self, queue: str) -> Any:
        """Return a queue's name as a value of its column."""
        return queue

    def name(self, key: Any) -> str:
        """Return the name in a column."""
        return str(key)

    @abstractmethod
    def insert(self, session: Session, rows: Sequence[MessageRow]) -> None:
        """Store messages, all or none, in their order."""

    @abstractmethod
    def claim(
        self, session: Session, queue: str, limit: int, room: int, token: int, lease: float
    ) -> tuple[list[Row], bool]:
        """Lease the first in line; return their rows, and whether there may be more."""

    @abstractmethod
    def settle(self, session: Session, ending: Ending) -> Collection[tuple[int, int]]:
        """End leases; return those that were ours."""

    @abstractmethod
    def extend(self, session: Session, tokens: Sequence[int], lease: float) -> Collection[int]:
        """Let leases end `lease` seconds from now; return those that are there."""

    @abstractmethod
    def bury(self, session: Session, letters: Sequence[Mapping[str, Any]]) -> None:
        """Keep dead letters, each once."""

    def facts(self, session: Session, queue: str) -> Facts:
        """Return what a queue has."""
        [row] = session.rows(self.sql(_FACTS), {"queue": self.key(queue)})
        return Facts(float(row[0]), bool(row[1]), row[2], row[3], bool(row[4]))

    def mend(self, session: Session, queue: str, lease: float) -> int:
        """Put in line what is due, and what leases held that have ended; return how many."""
        facts = self.facts(session, queue)
        moved = 0
        if facts.due is not None and facts.due <= facts.now:
            moved += self.promote(session, queue)
        ended = facts.ends is not None and facts.ends <= facts.now and session.grace(lease) <= 0
        if ended or facts.is_untidy:
            with session.transaction():
                moved += self.reap(session, queue, ended)
        return moved

    def promote(self, session: Session, queue: str) -> int:
        """Put in line what is due. O(moved log n)."""
        with session.transaction():
            seqs = [row[0] for row in session.rows(self.sql(_DUE), {"queue": self.key(queue)})]
            if seqs:
                sql = f"UPDATE @message SET due = 0 WHERE seq IN ({listed(seqs)}) AND due > 0"
                return session.count(self.sql(sql))
        return 0

    def reap(self, session: Session, queue: str, all_ended: bool = True) -> int:
        """Put in line what leases held that have ended. In a transaction. O(leases)."""
        those = "(ends <= @@now OR count <= 0)" if all_ended else "count <= 0"
        ended = session.rows(self.sql(_ENDED.format(those=those)), {"queue": self.key(queue)})
        return self._return(session, ended, 1) if ended else 0

    def _return(self, session: Session, leases: Sequence[Row], lost: int) -> int:
        moved = 0
        for token, seqs in leases:
            if those := numbers(seqs):
                sql = _RETURN.format(lost=lost, seqs=listed(those), token=token)
                moved += session.count(self.sql(sql))
        tokens = listed([row[0] for row in leases])
        session.rows(self.sql(f"DELETE FROM @lease WHERE token IN ({tokens})"))
        return moved

    def give_back(self, session: Session, tokens: Sequence[int]) -> None:
        """Put in line what was leased by claims whose answers did not come; no lease was lost."""
        sql = f"SELECT token, seqs FROM @lease WHERE token IN ({listed(tokens)}) FOR UPDATE"
        with session.transaction():
            if found := session.rows(self.sql(sql)):
                self._return(session, found, 0)

    def size(self, session: Session, queue: str) -> list[int]:
        """Return how many wait, are delayed, leased and dead."""
        [row] = session.rows(self.sql(_SIZE), {"queue": self.key(queue)})
        return [int(count) for count in row]

    def queues(self, session: Session) -> list[str]:
        """Return the names of all that hold anything."""
        return sorted(self.name(row[0]) for row in session.rows(self.sql(_QUEUES)))

    def purge(self, session: Session, queue: str, parts: Part) -> int:
        """Delete parts of a queue; return how many messages."""
        key, count = {"queue": self.key(queue)}, 0
        with session.transaction():
            while self.reap(session, queue):
                pass
            if Part.LEASED in parts:
                count += self._purge_leased(session, queue)
            for part, those in ((Part.WAITING, "due <= @@now"), (Part.DELAYED, "due > @@now")):
                if part in parts:
                    sql = f"DELETE FROM @message WHERE queue = %(queue)s AND {those}"
                    count += session.count(self.sql(sql), key)
            if Part.DEAD in parts:
                count += session.count(self.sql("DELETE FROM @dead WHERE queue = %(queue)s"), key)
        return count

    def _purge_leased(self, session: Session, queue: str) -> int:
        sql = "SELECT token, seqs FROM @lease WHERE queue = %(queue)s ORDER BY token FOR UPDATE"
        leases, count = session.rows(self.sql(sql), {"queue": self.key(queue)}), 0
        for token, seqs in leases:
            sql = f"DELETE FROM @message WHERE seq IN ({listed(numbers(seqs))}) AND lease = {token}"
            count += session.count(self.sql(sql))
        tokens = listed([row[0] for row in leases])
        session.rows(self.sql(f"DELETE FROM @lease WHERE token IN ({tokens})"))
        return count

    def dead_letters(self, session: Session, queue: str, limit: int, offset: int) -> list[Row]:
        """Return (seq, body, reason, trace, died) of dead letters, the newest first."""
        values = {"queue": self.key(queue), "limit": max(limit, 0), "offset": max(offset, 0)}
        return session.rows(self.sql(_DEAD), values)

    def replay(
        self, session: Session, queue: str, seqs: Sequence[int] | None, after: int, again: Again
    ) -> tuple[int, int]:
        """Put some dead letters back in line; return how many, and the last one's number."""
        those = "" if seqs is None else f"AND seq IN ({listed(seqs)})"
        sql = self.sql(_REPLAYED.format(those=those, chunk=_CHUNK))
        with session.transaction():
            found = session.rows(sql, {"queue": self.key(queue), "after": after})
            if not found:
                return 0, after
            rows = [
                MessageRow(queue, uuid.uuid4().hex, replayed(again, body, headers), priority, 0.0,
                           0.0, headers, published or time.time())
                for _, body, headers, priority, published in found
            ]  # fmt: skip
            self.insert(session, rows)
            gone = listed([row[0] for row in found])
            session.rows(self.sql(f"DELETE FROM @dead WHERE seq IN ({gone})"))
        return len(found), found[-1][0]
