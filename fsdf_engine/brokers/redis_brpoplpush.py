"""Redis lists with confirmed consumption: each message moves to an owner's list. Redis >= 6.2."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import repeat
from typing import Any, ClassVar

from ..contracts import (
    Capability,
    Delivery,
    LeaseId,
    Part,
    Settlement,
    Subscription,
)  # fmt: skip
from ..errors import Unavailable
from ..outcomes import Ack
from .redis_ack_scripts import BATCH, EXTEND
from .redis_ack_scripts import SCRIPTS as LIST_SCRIPTS
from .redis_brpoplpush_scripts import ACK, CLAIM, PURGE, RETURN, SCRIPTS, SIZE, keys_of
from .redis_connection import Command, Connection, Connections, Unanswered
from .redis_entries import arguments, opened
from .redis_list_counts import SCRIPTS as SENDING
from .redis_queue import PARTS, RedisQueueBroker, RedisQueueSubscription

__all__ = ["RedisBrpopLpushBroker"]

_SUFFIXES = [f"-{place}" for place in range(1, BATCH + 1)]


class RedisBrpopLpushBroker(RedisQueueBroker):
    """At least once: LMOVE takes messages to a list that belongs to one lease.

    A lease is named by that list and a place in it, never by the payload, so that a late owner can
    change nothing. Everything but the leases is stored as REDIS_ACK_ABLE stores it.
    """

    capabilities: Capability = RedisQueueBroker.capabilities | Capability.LEASE

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connections = Connections(url, (*SENDING, SIZE, PURGE))

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _OwnerSubscription(self.url, queue, lease)

    def _size(self, queue: str) -> Command:
        return SIZE(keys_of(queue))

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        names = [name for part, name in PARTS.items() if part in parts]
        return int(self._call(queue, PURGE(keys_of(queue), *names)))


class _OwnerSubscription(RedisQueueSubscription):
    """A lease is (key of the owner's list, place)."""

    keeps: ClassVar[bool] = True

    def __init__(self, url: str, queue: str, lease: float) -> None:
        super().__init__(url, queue, lease)
        self._keys = keys_of(queue)
        self._fetching = Connection(url, (*SCRIPTS, *LIST_SCRIPTS), queue)
        self._connections = Connections(url, (*SCRIPTS, *LIST_SCRIPTS))
        self._skew = 0.0  # the server's clock minus our monotonic one, once known

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        token = self._token()
        owner = f"{{{self._queue}}}:o:{token}"
        told = (owner, min(limit, BATCH), max_bytes, self._lease)
        began = time.monotonic()
        try:
            self._open()
            sent = time.monotonic()
            when = sent + self._skew if self._skew else ""
            claim = CLAIM(self._keys, *told, self._age(), when, self._waiter, *self._missed)
            entries, waiter, items, now = self._fetching.call(claim)[0]
        except Unavailable as error:
            if isinstance(error, Unanswered):
                self._missed.append(owner)
            self._down = self._down or began
            raise
        self._skew = float(now) - time.monotonic()
        if time.monotonic() - began > max(self._lease / 3, 0.25):
            self._down = self._down or began  # so late an answer is none
        self._missed.clear()
        self._waiter = ""
        self._poke(waiter)
        found = [_returned((owner, n), items[n - 1], token) for n in range(1, entries + 1)]
        end = len(items)
        leases = zip(repeat(owner), range(entries + 1, end + 1))
        # map() leaves the loop to C: this is the hot path
        found += map(Delivery, leases, items[entries:], map(token.__add__, _SUFFIXES[entries:end]))
        return found

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        acks: dict[str, list[int]] = {}
        others: list[Settlement] = []
        for lease, verdict in batch:
            if type(verdict) is Ack:
                acks.setdefault(lease[0], []).append(lease[1])
            else:
                others.append((lease, verdict))
        # who is put back last is the first in line
        others.sort(key=lambda other: other[0], reverse=True)
        commands: list[Command] = []
        if acks:
            told: list[Any] = []
            for owner, places in acks.items():
                told += (owner, len(places), *places)
            commands.append(ACK(self._keys, *told))
        if others:
            groups = [value for lease, kind in others for value in (*lease, *arguments(kind))]
            commands.append(RETURN(self._keys, *groups))
        replies = self._connections.to(self._queue).call(*commands)
        lost: list[LeaseId] = []
        if acks and (gone := replies[0]):
            flat = [(owner, place) for owner, places in acks.items() for place in places]
            lost += [flat[n] for n in gone]
        if others:
            waiter, gone = replies[-1]
            lost += [others[n][0] for n in gone]
            self._poke(waiter)
        return lost

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        owners = list(dict.fromkeys([owner for owner, _ in leases]))
        if not owners:
            return ()
        [ours] = self._connections.to(self._queue).call(EXTEND(self._keys, self._lease, *owners))
        held = {owner for owner, kept in zip(owners, ours) if kept}
        return [lease for lease in leases if lease[0] in held]


def _returned(lease: LeaseId, entry: bytes, token: str) -> Delivery:
    """Return the delivery of an entry: what has been leased before, or has a priority."""
    id, lost, priority, state, body = opened(entry)
    return Delivery(lease, body, id or f"{token}-{lease[1]}", lost, state, priority=priority)
