"""SQL broker: messages in tables of PostgreSQL, MariaDB or MySQL; a SQLite file is SqliteBroker's.

A fetch makes one lease for all it takes: one row with the deadline, by the server's clock. What
waits is claimed by SKIP LOCKED, so consumers never wait for each other. On PostgreSQL each call is
one statement, and waiting consumers are notified; on MariaDB and MySQL they look up, at least four
times a second. Whatever a table's constraints let another program write is delivered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar

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
)
from ..errors import BrokerError, ConfigurationError, PublishError, Unanswered
from .sql_database import SqlDatabase
from .sql_mysql import MySqlSteps
from .sql_place import is_sqlite
from .sql_postgresql import PostgresSteps, channel_of
from .sql_rows import deliveries, letter_row, message_row, sorted_out
from .sql_session import Session
from .sql_steps import Steps
from .sql_waiting import Bell, Bells, Listener, rings_of

__all__ = ["SqlBroker"]

LOOK = 5.0  # seconds; a process that is killed between its ring and its fetch delays others so long
MEND = 0.1  # seconds between two looks, among busy fetches, for what is due or has ended
SOONEST, LATEST = 0.01, 0.25  # seconds between two looks where no server notifies
_ROOM = 100_000  # bytes of a statement that are not bodies


class SqlBroker(Broker):
    """Messages in one database. `url` is an SQLAlchemy URL; see `sql_place`."""

    capabilities: Capability = (
        Capability.LEASE | Capability.DELAY | Capability.PRIORITY | Capability.DEAD_LETTER
        | Capability.SIZE | Capability.SHARED | Capability.ORDERED | Capability.PULL
        | Capability.TIMED | Capability.COUNTED | Capability.BROWSE | Capability.ATOMIC
        | Capability.SIZE_LEASED | Capability.LISTED
    )  # fmt: skip
    setting: ClassVar[str] = "SQLALCHEMY_URL"

    def __new__(cls, url: str) -> Any:
        """Leave a SQLite file to its own broker: the same file, whichever kind names it."""
        if is_sqlite(url):
            from .sqlite import SqliteBroker

            return SqliteBroker(url)
        return super().__new__(cls)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.database = SqlDatabase.shared(url)
        steps: type[Steps] = PostgresSteps if self.database.is_postgresql else MySqlSteps
        self.steps = steps(self.database)
        self.bells = Bells()
        self.listener = Listener(self.database)

    @property
    def address(self) -> str:
        return self.database.place.shown

    @cached_property
    def transactions(self) -> Transactions:  # type: ignore[override]
        """Those of SQLAlchemy; the queue's part in them is another module's matter."""
        from .sql_server_transactions import SqlTransactions

        return SqlTransactions(self.url, self.database, self.steps)

    @classmethod
    def valid_queue(cls, name: str) -> None:
        super().valid_queue(name)
        if len(name.encode()) > 255 or "\0" in name:
            raise ConfigurationError(
                f"the queue's name {name[:50]!r} must have at most 255 bytes, and no NUL, to be"
                " in an SQL database"
            )

    def publish(self, batch: Sequence[Outgoing]) -> None:
        if not batch:
            return
        rejected: list[Outgoing] = []

        def store(session: Session) -> None:
            rejected.clear()
            self._store(session, batch, rejected)

        try:
            self.database.run(store)
        except Unanswered as error:
            raise PublishError([], batch) from error
        except BrokerError as error:
            if type(error) is not BrokerError:
                raise
            raise PublishError(batch) from error  # a value has no place here
        for ring in rings_of([item for item in batch if item not in rejected]):
            self.ring(*ring)
        if rejected:
            raise PublishError(rejected)

    def _store(self, session: Session, batch: Sequence[Outgoing], rejected: list[Outgoing]) -> None:
        """Store what the server takes in statements that it takes."""
        chunks: list[list[Outgoing]] = [[]]
        size, most = 0, session.largest - _ROOM
        for item in batch:
            length = session.length(item.body) + 2 * len(str(item.headers or "")) + len(item.id)
            if length > most:
                rejected.append(item)
                continue
            if size + length > min(most, 8 << 20) and chunks[-1]:
                chunks.append([])
                size = 0
            chunks[-1].append(item)
            size += length + 500
        if len(chunks) == 1:
            if chunks[0]:
                self.steps.insert(session, [message_row(item) for item in chunks[0]])
            return
        with session.transaction():
            for chunk in chunks:
                self.steps.insert(session, [message_row(item) for item in chunk])

    def ring(self, queue: str, most: int, delay: float = 0.0, instant: float = 0.0) -> None:
        """Wake up to so many who wait, and would still do so after `delay` or at the instant."""
        if not self.steps.notifies:
            self.bells.ring(queue, most, delay)
            return
        wait = 0.0 if instant else delay
        with suppress(BrokerError):  # who waits looks again by himself
            self.database.run(lambda session: self.steps.ring(session, queue, most, instant, wait))

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _SqlSubscription(self, queue, lease)

    def size(self, queue: str) -> QueueSize:
        return QueueSize(*self.database.run(lambda session: self.steps.size(session, queue)))

    def queues(self) -> Sequence[str]:
        return self.database.run(self.steps.queues)

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        return self.database.run(lambda session: self.steps.purge(session, queue, parts))

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        rows = self.database.run(
            lambda session: self.steps.dead_letters(session, queue, limit, offset)
        )
        return [DeadMessage(str(seq), bytes(body), *rest) for seq, body, *rest in rows]

    def bury(self, batch: Sequence[Letter]) -> None:
        letters = {(item.queue, item.id, item.body): letter_row(item) for item in batch}
        if letters:
            rows = list(letters.values())
            self.database.run(lambda session: self.steps.bury(session, rows))

    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        seqs = None
        if ids is not None:
            seqs = [int(id) for id in ids if id.isdecimal() and len(id) < 19]
        count, last = 0, -1
        while True:
            some, last = self.database.run(
                lambda session, last=last: self.steps.replay(session, queue, seqs, last, again)  # type: ignore[misc]
            )
            if not some:
                break
            count += some
        if count:
            self.ring(queue, count)
        return count

    def check(self) -> None:
        self.size("fsdf")

    def close(self) -> None:
        self.listener.close()
        self.database.close()


class _SqlSubscription(Subscription):
    def __init__(self, broker: SqlBroker, queue: str, lease: float) -> None:
        self._broker, self._queue, self._lease = broker, queue, lease
        self._steps, self._run = broker.steps, broker.database.run
        self._bell = Bell(_token(), queue)
        self._mend_at = 0.0  # `time.monotonic`
        self._doubtful: list[int] = []  # leases of claims whose answers did not come

    def wait(self, timeout: float) -> None:
        bell, end = self._bell, time.monotonic() + min(timeout, LOOK)
        bell.until = end
        self._broker.bells.enter(bell)
        notifies = self._steps.notifies
        try:
            if notifies:
                pid = self._broker.listener.hear(channel_of(self._queue), bell)
                told = bell.token, self._queue, pid, end - time.monotonic()
                self._run(lambda session: self._steps.register(session, *told))
            pause = LOOK if notifies else SOONEST
            while not bell.event.is_set():
                due = self._look()
                now = time.monotonic()
                bell.until = min(due, end)
                if due <= now or now >= end or bell.event.wait(min(due, end, now + pause) - now):
                    break
                pause = min(pause * 1.5, LATEST) if not notifies else pause
        finally:
            self._broker.bells.leave(bell)
            if notifies:
                self._leave(bell)
            bell.event.clear()

    def _look(self) -> float:
        """Return when a fetch may find something (`time.monotonic`)."""
        facts, grace = self._run(
            lambda session: (self._steps.facts(session, self._queue), session.grace(self._lease))
        )
        now, dues = time.monotonic(), [float("inf")]
        if facts.waits:
            return now
        if facts.due is not None:
            dues.append(facts.due - facts.now)
        if facts.ends is not None:
            dues.append(max(facts.ends - facts.now, grace))
        return now + max(min(dues), 0.0)

    def _leave(self, bell: Bell) -> None:
        self._broker.listener.forget(bell)
        with suppress(BrokerError):  # the row says until when it counts
            self._run(lambda session: self._steps.unregister(session, bell.token))

    def wake(self) -> None:
        self._bell.event.set()

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        if limit <= 0:
            return ()
        if self._doubtful:
            doubtful = list(self._doubtful)
            self._run(lambda session: self._steps.give_back(session, doubtful))
            self._doubtful.clear()
        found, more = self._claim(limit, max_bytes)
        if not found or time.monotonic() >= self._mend_at:
            self._mend_at = time.monotonic() + MEND
            mended = self._run(lambda session: self._steps.mend(session, self._queue, self._lease))
            if mended and not found:
                found, more = self._claim(limit, max_bytes)
            more = more or bool(mended)
        self.emptied = not more
        if more:  # whoever was rung for several messages wakes the next one
            self._broker.ring(self._queue, 1)
        return found

    def _claim(self, limit: int, max_bytes: int) -> tuple[list[Delivery], bool]:
        token = _token()
        try:
            rows, more = self._run(
                lambda session: self._steps.claim(
                    session, self._queue, limit, max_bytes, token, self._lease
                )
            )
        except Unanswered:
            self._doubtful.append(token)
            raise
        return deliveries(token, rows), more

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        ending, lost = sorted_out(batch)
        if not batch:
            return lost
        ended = self._run(lambda session: self._steps.settle(session, ending))
        for part in ending:
            lost += [(row[0], row[1]) for row in part if (row[0], row[1]) not in ended]
        if ending.released:
            delays = [row[2] for row in ending.released]
            now = sum(not delay for delay in delays)
            self._broker.ring(self._queue, now or 1, 0.0 if now else min(delays))
        return lost

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        tokens = sorted({token for token, _ in leases})
        if not tokens:
            return ()
        kept = self._run(lambda session: self._steps.extend(session, tokens, self._lease))
        return [lease for lease in leases if lease[0] in kept]

    def close(self) -> None:
        self._broker.listener.forget(self._bell)


def _token() -> int:
    return int.from_bytes(os.urandom(8), "big") >> 1
