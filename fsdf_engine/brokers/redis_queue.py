"""What the Redis list brokers share: publishing, waiting, dead letters, sizes. Redis >= 6.2.

Keys and scripts are described in `redis_ack_scripts`. A message of priority 0 is its bare body in
the list named like the queue, so any program may LPUSH one, and LLEN is true.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from ..contracts import (
    SIGNS,
    Again,
    Broker,
    Capability,
    DeadMessage,
    Letter,
    Outgoing,
    Part,
    QueueSize,
    Subscription,
    line_of,
    unchanged,
)  # fmt: skip
from ..errors import BrokerError, ConfigurationError, PublishError, ServerRefused, Unavailable
from ..message import new_id
from .redis_ack_scripts import BATCH, CLAIM, DELAY, FORGET, GIVE_BACK, LOOK, SCRIPTS, keys_of
from .redis_connection import Command, Connection, Connections, Unanswered, failure
from .redis_entries import buried, due_later, fresh, letter
from .redis_list_counts import BURY, LETTERS, PURGE, REPLAY, SIZE
from .redis_list_counts import SCRIPTS as SENDING
from .redis_names import holding

__all__ = ["PARTS", "RedisQueueBroker", "RedisQueueSubscription", "Taken"]

CHUNK = 1000  # bodies per LPUSH: bounds how long one command holds the server
PARTS = {Part.WAITING: "waiting", Part.DELAYED: "delayed", Part.LEASED: "leased", Part.DEAD: "dead"}
PAGE = 100  # dead letters per script: each may be large
# Of all Redis brokers: they may share a server.
_SIDE_KEY = re.compile(
    r"\{(.*)\}:(?:again|bell|claims|dead|delayed|leases|letters|owners|states|waiters"
    r"|[ps]:-?\d|(?:b|o|bell|below):.*)",
    re.DOTALL,
)
_OURS = "fsdf:"
SIGN_KEYS = tuple(f"{_OURS}mark:{sign}" for sign in SIGNS)  # a store's
_ASK_SIGNS: Command = ("EXISTS", *SIGN_KEYS)
LONGEST = 300.0  # seconds of one wait; waiters are forgotten after an hour
Taken: TypeAlias = tuple[str, int, list[bytes]]  # a batch's key, how many are entries, the items


class _Parcel(NamedTuple):
    """A command, and the messages that it stores; other than LPUSH it answers a waiter to poke."""

    queue: str
    command: Command
    items: list[Outgoing]


def poke(connection: Connection, queue: str, id: Any) -> None:
    """Unblock one waiter; forget those that wait no longer. Sends."""
    # what it tells of is stored already, and a waiter looks again by itself after its lease
    with contextlib.suppress(BrokerError, ServerRefused):
        while id:
            [reply] = connection.exchange([("CLIENT", "UNBLOCK", id)])
            if reply == 1:
                return
            [id] = connection.call(FORGET(keys_of(queue), id))


class RedisQueueBroker(Broker):
    """The sending half, and what is counted, listed and purged."""

    setting: ClassVar[str] = "REDIS_URL"
    kind: ClassVar[str] = "list"  # the type of a queue's own key
    capabilities: Capability = (
        Capability.DELAY | Capability.PRIORITY | Capability.DEAD_LETTER | Capability.SIZE
        | Capability.SHARED | Capability.ORDERED | Capability.GREEN_SAFE
        | Capability.PULL | Capability.TIMED | Capability.COUNTED | Capability.BROWSE
        | Capability.ATOMIC | Capability.SIZE_LEASED | Capability.LISTED
    )  # fmt: skip

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connections = Connections(url, SENDING)

    @classmethod
    def valid_queue(cls, name: str) -> None:
        super().valid_queue(name)
        if found := _SIDE_KEY.fullmatch(name):
            raise ConfigurationError(
                f"the queue's name {name!r} is a key in which Redis brokers keep the state of queue"
                f" {found[1]!r}; choose another name"
            )
        if name.startswith(_OURS):
            raise ConfigurationError(
                f"the queue's name {name!r} begins as the keys of results do; choose another name"
            )

    def publish(self, batch: Sequence[Outgoing]) -> None:
        queues: dict[str, list[Outgoing]] = {}
        for item in batch:
            queues.setdefault(item.queue, []).append(item)
        by_connection: dict[Connection, list[_Parcel]] = {}
        for queue, items in queues.items():
            by_connection.setdefault(self._connections.to(queue), []).extend(_parcels(queue, items))
        rejected: list[Outgoing] = []
        unknown: list[Outgoing] = []
        reason: Exception | None = None
        for connection, parcels in by_connection.items():
            try:
                replies = connection.exchange([parcel.command for parcel in parcels])
            except (Unavailable, ServerRefused) as error:
                reason = error
                stored = unknown if isinstance(error, Unanswered) else rejected
                stored += [item for parcel in parcels for item in parcel.items]
                continue
            for parcel, reply in zip(parcels, replies):
                if refused := failure(reply):
                    reason = refused
                    rejected += parcel.items
                elif parcel.command[0] != "LPUSH":
                    poke(connection, parcel.queue, reply)
        if reason:
            if len(rejected) == len(batch) and isinstance(reason, (Unavailable, ServerRefused)):
                raise reason
            raise PublishError(rejected, unknown) from reason

    def size(self, queue: str) -> QueueSize:
        return QueueSize(*self._call(queue, self._size(queue)))

    def queues(self) -> Sequence[str]:
        return holding(self._connections, self.kind, self._size)

    def _size(self, queue: str) -> Command:
        return SIZE(keys_of(queue))

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        names = [name for part, name in PARTS.items() if part in parts]
        return int(self._call(queue, PURGE(keys_of(queue), *names)))

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        flat = self._call(queue, LETTERS(keys_of(queue), offset, limit))
        return [letter(*facts) for facts in zip(flat[::3], flat[1::3], flat[2::3])]

    def delayed(self, queue: str, limit: int = 100) -> Sequence[Outgoing]:
        keys = f"{{{queue}}}:delayed", f"{{{queue}}}:below:delayed"
        ranges = [("ZRANGE", key, 0, limit - 1, "WITHSCORES") for key in keys]
        return due_later(queue, self._connections.to(queue).call(*ranges))[:limit]

    def bury(self, batch: Sequence[Letter]) -> None:
        queues: dict[str, list[Letter]] = {}
        for item in batch:
            queues.setdefault(item.queue, []).append(item)
        by_connection: dict[Connection, list[Command]] = {}
        for queue, letters in queues.items():
            commands = by_connection.setdefault(self._connections.to(queue), [])
            for start in range(0, len(letters), PAGE):
                commands.append(self._bury(queue, buried(letters[start : start + PAGE])))
        for connection, commands in by_connection.items():
            connection.call(*commands)

    def _bury(self, queue: str, told: Sequence[Any]) -> Command:
        return BURY(keys_of(queue), *told)

    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        connection, total = self._connections.to(queue), 0
        # All: those that there are now, for what runs meanwhile may bury others.
        [(seconds, micros)] = connection.call(("TIME",))
        now = f"{int(seconds)}.{int(micros):06}"
        oldest = ("ZRANGE", f"{{{queue}}}:dead", "-inf", now, "BYSCORE", "LIMIT", 0, PAGE)
        wanted: Any = None if ids is None else list(ids)
        while some := connection.call(oldest)[0] if wanted is None else wanted[:PAGE]:
            [found] = connection.call(("HMGET", f"{{{queue}}}:letters", *some))
            told = [(id, again(letter(b"", b"0", value).body, None) if value else b"")
                    for id, value in zip(some, found)]  # fmt: skip
            total += self._send_again(connection, queue, [part for pair in told for part in pair])
            wanted = wanted and wanted[PAGE:]
        return total

    def _send_again(self, connection: Connection, queue: str, told: Sequence[Any]) -> int:
        """Put letters (id, body, id, body, ...) back in line; return how many there were."""
        [(count, waiter)] = connection.call(REPLAY(keys_of(queue), *told))
        poke(connection, queue, waiter)
        return int(count)

    def check(self) -> None:
        self._connections.to().open()

    def close(self) -> None:
        self._connections.close()

    def _call(self, queue: str, command: Command) -> Any:
        return self._connections.to(queue).call(command)[0]


def _parcels(queue: str, items: list[Outgoing]) -> list[_Parcel]:
    """Return the commands that store these messages."""
    plain: list[Outgoing] = []
    lines: dict[int, list[Outgoing]] = {}
    later: dict[int, list[Outgoing]] = {}
    for item in items:
        priority = item.priority and line_of(item.priority)
        if item.delay > 0 or item.not_before > 0:
            later.setdefault(3 if priority >= 0 else 20, []).append(item)
        elif priority:
            lines.setdefault(priority, []).append(item)
        else:
            plain.append(item)
    found: list[_Parcel] = []
    for start in range(0, len(plain), CHUNK):
        some = plain[start : start + CHUNK]
        found.append(_Parcel(queue, ("LPUSH", queue, *[item.body for item in some]), some))
    if not (lines or later):
        return found
    keys = keys_of(queue)
    for priority, some in lines.items():
        entries = [b":0:%d:\n" % priority + item.body for item in some]
        place = 6 + priority if priority > 0 else 15 - priority // 3
        found.append(_Parcel(queue, ("LPUSH", keys[place], *entries), some))
        found.append(_Parcel(queue, ("SRANDMEMBER", keys[4]), []))
    for place, those in later.items():
        for start in range(0, len(those), CHUNK):
            some = those[start : start + CHUNK]
            found.append(_Parcel(queue, DELAY(keys, place, *fresh(some)), some))
    return found


class RedisQueueSubscription(Subscription):
    """Waits and takes; unless it `keeps`, it leases nothing and what it has taken is gone.

    Both kinds bring back what another one's ended lease held.
    """

    keeps: ClassVar[bool]

    def __init__(self, url: str, queue: str, lease: float) -> None:
        self.url = url
        self._queue, self._lease, self._keys = queue, lease, keys_of(queue)
        self._batch = f"{{{queue}}}:b:"
        self._fetching = Connection(url, SCRIPTS, queue)  # blocks in wait()
        # everything else: the outbox's, the keeper's, wake()
        self._connections = Connections(url, SCRIPTS)
        # on a cluster they may lie on another node; the answer then says nothing
        self._signs = ("PING",) if self._connections.many else _ASK_SIGNS
        self._fetches = 0  # counts tokens
        self._chunk = 8  # how many to pop at first, from the size of the last bodies
        self._waiting = self._woken = False
        self._waiter: int | str = ""  # the id under which we are known as a waiter
        self._missed: list[str] = []  # what was perhaps leased for us while the answer was lost
        self._down: float | None = None  # since when the server does not answer
        self._hold_until = 0.0  # nothing is reaped before

    def wait(self, timeout: float) -> None:
        self._block(timeout)

    def _block(
        self, timeout: float, claim: Callable[[float], Command] | None = None
    ) -> Sequence[Any]:
        """Wait; return the replies, the third one of `claim`, which runs when the wait ends.

        `claim` is told for how long that may be; the last reply counts the signs that were there
        then. No replies: woken before. Errors are raised unless something was claimed.
        """
        self._waiting = True  # before reading `_woken`: wake() writes that first
        try:
            if self._woken:
                return ()
            self._waiter, age, patience = self._open(), self._age(), min(timeout, LONGEST)
            longest = patience + 1.0
            # one write: the server runs all before anybody can poke us in between
            replies = self._fetching.exchange(
                [
                    LOOK(self._keys, self._waiter, age),
                    ("BLMOVE", self._queue, self._queue, "RIGHT", "RIGHT", longest),
                    *([claim(longest), self._signs] if claim else ()),
                ],
                first=lambda reply: self._patience(reply, patience),
                late=self._unblock,
            )
            if not claim or not isinstance(replies[2], list) or not replies[2][2]:
                for error in filter(None, map(failure, replies[:3])):
                    raise error
            return replies
        except Unavailable:
            self._down = self._down or time.monotonic()
            raise
        finally:
            self._waiting = self._woken = False

    def _patience(self, look: Any, patience: float) -> float:
        """Return how long to block, from the answer of LOOK."""
        if self._woken or not isinstance(look, list) or look[0]:
            return 0.0
        now = time.monotonic()
        holds = (self._hold_until, self._fetching.started + self._grace())
        # a lease that is taken while we block may end after as long as ours
        ends = (float(look[1]), float(look[2]), self._lease, *[h - now for h in holds if h > now])
        return min(patience, *ends) + 0.001

    def wake(self) -> None:
        self._woken = True
        if self._waiting:
            # when the server is away the wait ends by that, too
            with contextlib.suppress(Unavailable):
                self._unblock()

    def _unblock(self) -> None:
        # what waits behind the blocking command takes nothing for one who is forgotten
        before = [FORGET(self._keys, self._fetching.id)] if self._woken else []
        unblock = ("CLIENT", "UNBLOCK", self._fetching.id)
        self._connections.to(self._queue).exchange([*before, unblock])

    def _grace(self) -> float:
        """Return for how long after an outage owners may extend before anything is reaped."""
        return self._lease / 3 + 1.0

    def _open(self) -> int:
        """Connect if need be; after an outage that kept owners from extending, hold the reaping."""
        id = self._fetching.open()
        if self._down is not None:
            now = time.monotonic()
            if now - self._down > self._lease / 3:
                self._hold_until = now + self._grace()
            self._down = None
        return id

    def _age(self) -> float | str:
        """Return the age that CLAIM and LOOK are told."""
        now = time.monotonic()
        if now < self._hold_until:
            return "-"
        up = now - self._fetching.started
        return up if up < self._grace() else ""

    def _token(self) -> str:
        """Return what names a lease and nobody can guess; ours are in the order of their making."""
        self._fetches += 1
        return f"{self._fetches:08x}{new_id()[:16]}"

    def _take(self, limit: int, max_bytes: int) -> list[Taken]:
        """Take up to two batches."""
        self.unsigned = False
        parts = [min(limit, BATCH)]
        if limit > BATCH and not self._waiter:  # after a wait there is rarely that much
            parts.append(min(limit - BATCH, BATCH))
        batches = [self._batch + self._token() for _ in parts]
        room = max(1, max_bytes // len(parts))
        try:
            self._open()
            lease = self._lease if self.keeps else ""
            until = time.monotonic() + self._fetching.clock + min(1.0, self._lease / 3)
            told = (room, lease, self._age(), self._chunk, self._waiter, until)
            before = [GIVE_BACK(self._keys, *self._missed)] if self._missed else []
            claims = [CLAIM(self._keys, batch, part, *told) for batch, part in zip(batches, parts)]
            *replies, signs = self._fetching.exchange([*before, *claims, self._signs])
            for error in filter(None, map(failure, replies)):
                raise error
        except Unavailable as error:
            if isinstance(error, Unanswered):
                self._missed += batches
            self._down = self._down or time.monotonic()
            raise
        self._waiter = ""
        self._missed.clear()
        found: list[Taken] = []
        for batch, part, reply in zip(batches, parts, replies[len(before) :]):
            found += self._taken(batch, part, room, reply)
        self.unsigned = bool(found) and signs == 0  # asked after the claims; an error says nothing
        return found

    def _taken(self, batch: str, limit: int, room: int, reply: Any) -> list[Taken]:
        """Return what a claim has brought, if anything, and learn from it."""
        entries, waiter, items, clock = reply
        self._fetching.clock = float(clock) - time.monotonic()  # it may have been set
        self._poke(waiter)
        size = sum(map(len, items))
        self.emptied = len(items) < limit and size < room and waiter is None
        if not items:
            return []
        self._chunk = max(1, min(BATCH, room // (2 * (size // len(items) + 1))))
        return [(batch, entries, items)]

    def _poke(self, waiter: Any) -> None:
        if waiter:
            poke(self._connections.to(self._queue), self._queue, waiter)

    def close(self) -> None:
        self._fetching.close()
        self._connections.close()
