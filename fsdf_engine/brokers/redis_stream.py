"""Redis streams with confirmed consumption, through a consumer group. Redis >= 6.2.

Any program may `XADD q * body '{"a": 3, "b": 6}'`; the name of the field does not matter. An entry
that is settled is deleted, so XLEN is true. A new message wakes every waiting worker, for only a
blocking read that leases would choose one of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any, ClassVar, TypeAlias

from ..contracts import (
    Capability,
    Delivery,
    LeaseId,
    Outgoing,
    Part,
    Settlement,
    Subscription,
    line_of,
)  # fmt: skip
from ..errors import PublishError, ServerRefused, Unavailable
from ..outcomes import Ack, state_of
from .redis_connection import Command, Connection, Connections, Unanswered, failure
from .redis_entries import arguments, fresh
from .redis_list_counts import LETTERS
from .redis_queue import PARTS, RedisQueueBroker
from .redis_stream_counts import BURY, PURGE, REPLAY, SIZE
from .redis_stream_leases import ACK, CLOSE, EXTEND, RETURN, SCRIPTS
from .redis_stream_scripts import CLAIM, DELAY, keys_of

__all__ = ["RedisStreamBroker"]

_Parcel: TypeAlias = tuple[Command, Sequence[Outgoing]]  # a command, and what it stores
CHUNK = 500  # leases, delayed messages or ids per script: bounds how long one holds the server
_FIRST = {n: (n, 1) for n in (*range(10), -3, -6, -9)}  # tokens of what was never handed out before


class RedisStreamBroker(RedisQueueBroker):
    """A stream per priority; dead letters and delayed messages are kept as for the list brokers."""

    kind: ClassVar[str] = "stream"
    capabilities: Capability = RedisQueueBroker.capabilities | Capability.LEASE

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connections = Connections(url, (DELAY, SIZE, PURGE, LETTERS, REPLAY, BURY))

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
                replies = connection.exchange([command for command, _ in parcels])
            except (Unavailable, ServerRefused) as error:
                reason = error
                lost = unknown if isinstance(error, Unanswered) else rejected
                lost += [item for _, items in parcels for item in items]
                continue
            for (_, some), reply in zip(parcels, replies):
                if refused := failure(reply):
                    reason = refused
                    rejected += some
        if reason:
            if len(rejected) == len(batch) and isinstance(reason, (Unavailable, ServerRefused)):
                raise reason
            raise PublishError(rejected, unknown) from reason

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _StreamSubscription(self.url, queue, lease)

    def _size(self, queue: str) -> Command:
        return SIZE(keys_of(queue))

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        names = [name for part, name in PARTS.items() if part in parts]
        return int(self._call(queue, PURGE(keys_of(queue), *names)))

    def _bury(self, queue: str, told: Sequence[Any]) -> Command:
        return BURY(keys_of(queue), *told)

    def _send_again(self, connection: Connection, queue: str, told: Sequence[Any]) -> int:
        return int(connection.call(REPLAY(keys_of(queue), *told))[0])


def _parcels(queue: str, items: Sequence[Outgoing]) -> Iterator[_Parcel]:
    """Yield the commands that store these messages, each with the messages it stores."""
    keys = keys_of(queue)
    later: dict[int, list[Outgoing]] = {}
    for item in items:
        priority = item.priority and line_of(item.priority)
        if item.delay > 0 or item.not_before > 0:
            later.setdefault(11 if priority >= 0 else 20, []).append(item)
        else:
            place = priority if priority >= 0 else 15 - priority // 3
            yield ("XADD", keys[place], "*", "body", item.body), (item,)
    for place, those in later.items():
        for start in range(0, len(those), CHUNK):
            some = those[start : start + CHUNK]
            yield DELAY(keys, place, *fresh(some)), some


class _StreamSubscription(Subscription):
    """One consumer of the group; its name ends with the length of its leases.

    A lease is ((priority, how often the entry was handed out), entry id).
    """

    def __init__(self, url: str, queue: str, lease: float) -> None:
        self._queue, self._lease, self._keys = queue, lease, keys_of(queue)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(6).hex()}/{lease:.3f}"
        self._fetching = Connection(url, SCRIPTS, queue)  # blocks in wait()
        self._connections = Connections(
            url, SCRIPTS
        )  # everything else: the outbox's, the keeper's, wake()
        self._look = 0.0  # seconds until something is due, as of the last empty fetch
        self._seen: list[Any] = ["0-0"] * 14  # the last entries of the streams and of `bell`
        self._changing = threading.Lock()  # guards the next three
        self._waiting = self._woken = False
        self._waits = 0  # each has a stream of its own: none takes the wake-up of another
        self._down: float | None = None  # since when the server does not answer
        self._hold_until = 0.0  # nothing is reaped before
        self._skew = 0.0  # the server's clock minus our monotonic one, once known

    @property
    def _wakeup(self) -> str:
        return f"{self._keys[13]}:{self._name}:{self._waits}"

    def wait(self, timeout: float) -> None:
        with self._changing:
            if self._woken:
                self._woken = False
                return
            self._waiting = True
            self._waits += 1
        seconds = max(0.001, min(timeout, self._look))
        keys = (*self._keys[:10], *self._keys[16:19], self._keys[13], self._wakeup)
        block = int(seconds * 1000) + 1000  # the server looks at it ten times a second: ours counts
        peek = ("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", *keys, *self._seen, "0-0")
        try:
            with self._noting_outages(seconds + self._lease / 3):
                self._fetching.call(peek, patience=seconds, late=self._unblock)
        finally:
            with self._changing:
                self._waiting = False

    def wake(self) -> None:
        with self._changing:
            if not self._waiting:
                self._woken = True
                return
            wakeup = self._wakeup
        ring = ("XADD", wakeup, "MAXLEN", 1, "*", "r", "1")
        try:
            self._connection().call(ring, ("EXPIRE", wakeup, 60))
        except (Unavailable, ServerRefused):
            self._woken = True  # the wait ends by the same outage; the next one must not begin

    def _unblock(self) -> None:
        self._connection().call(("CLIENT", "UNBLOCK", self._fetching.id))

    def _connection(self) -> Connection:
        return self._connections.to(self._queue)

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        if limit < 1:
            return ()
        with self._noting_outages(self._lease / 3):
            self._fetching.open()
            sent = time.monotonic()
            told = (self._lease, self._hold(sent), sent + self._skew if self._skew else "")
            claim = CLAIM(self._keys, self._name, limit, max_bytes, *told)
            now, look, *items = self._fetching.call(claim)[0]
        self._skew = float(now) - time.monotonic()
        if items and type(items[0]) is list:
            return self._deliveries(items)
        self._look, self._seen = float(look) + 0.001, items
        return ()

    def _deliveries(self, runs: Sequence[list[Any]]) -> list[Delivery]:
        found: list[Delivery] = []
        for run in runs:
            priority = run[0]
            token, prefix = _FIRST[priority], f"{self._queue}:{priority}/"
            add = found.append
            fresh = partial(Delivery, priority=priority) if priority else Delivery
            for id, body in zip(run[1::2], run[2::2]):
                if b" " in id:
                    add(self._returned(priority, id, body))
                else:
                    add(fresh((token, id), body, prefix + id.decode()))
        return found

    def _returned(self, priority: int, told: bytes, body: bytes) -> Delivery:
        """Return what was handed out before."""
        id, times, lost, origin, state = told.split(b" ", 4)
        lease = ((priority, int(times)), id)
        kept = state_of(state) if state else None
        name = f"{self._queue}:{origin.decode()}"
        return Delivery(lease, body, name, int(lost), kept, priority=priority)

    @contextlib.contextmanager
    def _noting_outages(self, usual: float) -> Iterator[None]:
        """Note since when the server did not answer; an answer later than `usual` is none, too."""
        began = time.monotonic()
        try:
            yield
        except Unavailable:
            self._down = self._down or began
            raise
        if time.monotonic() - began > max(usual, 0.25):
            self._down = self._down or began

    def _hold(self, now: float) -> float:
        """Return for how long nothing may be reaped: after an outage owners extend first."""
        if self._down is not None:
            if now - self._down > self._lease / 3:
                self._hold_until = now + self._lease / 3 + 1.0
            self._down = None
        return max(0.0, self._hold_until - now)

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        others = [pair for pair in batch if type(pair[1]) is not Ack]
        acks = batch if not others else [pair for pair in batch if type(pair[1]) is Ack]
        commands: list[Command] = []
        whom: list[list[LeaseId]] = []
        for token, ids in _grouped([lease for lease, _ in acks]):
            commands.append(ACK(self._keys, self._name, *token, len(ids), *ids))
            whom.append(list(zip(repeat(token), ids)))
        for start in range(0, len(others), CHUNK):
            some = others[start : start + CHUNK]
            told: list[Any] = []
            for (token, id), verdict in some:
                told += (*token, id, *arguments(verdict))
            commands.append(RETURN(self._keys, self._name, *told))
            whom.append([lease for lease, _ in some])
        return self._lost(commands, whom)

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        commands: list[Command] = []
        whom: list[list[LeaseId]] = []
        for token, ids in _grouped(leases):
            bounds = min(ids, key=_place), max(ids, key=_place)
            commands.append(EXTEND(self._keys, self._name, *token, *bounds, len(ids), *ids))
            whom.append(list(zip(repeat(token), ids)))
        lost = set(self._lost(commands, whom))
        return [lease for lease in leases if lease not in lost]

    def _lost(self, commands: list[Command], leases: list[list[LeaseId]]) -> list[LeaseId]:
        if not commands:
            return []
        replies = self._connection().call(*commands)
        return [some[n] for some, reply in zip(leases, replies) for n in reply]

    def close(self) -> None:
        # the consumer of a lost connection goes when its leases end
        with contextlib.suppress(Unavailable, ServerRefused):
            self._fetching.call(CLOSE(self._keys, self._name))
        self._fetching.close()
        self._connections.close()


def _grouped(leases: Sequence[LeaseId]) -> Iterator[tuple[Any, list[bytes]]]:
    """Yield each token with up to CHUNK of its ids."""
    groups: dict[Any, list[bytes]] = {}
    for token, id in leases:
        try:
            groups[token].append(id)
        except KeyError:
            groups[token] = [id]
    for token, ids in groups.items():
        for start in range(0, len(ids), CHUNK):
            yield token, ids[start : start + CHUNK]


def _place(id: bytes) -> tuple[int, int]:
    first, _, second = id.partition(b"-")
    return int(first), int(second)
