"""Redis lists with confirmed consumption: one lease per fetched batch. Redis >= 6.2."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import repeat
from typing import Any, TypeAlias

from ..contracts import Capability, Delivery, LeaseId, Settlement, Subscription
from ..errors import Unavailable
from ..outcomes import Ack
from .redis_ack_scripts import ACK, BATCH, EXTEND, RETURN, TAKE
from .redis_connection import Command
from .redis_entries import arguments, opened
from .redis_queue import RedisQueueBroker, RedisQueueSubscription, Taken

__all__ = ["AckSubscription", "Owners", "RedisAckBroker"]

Owners: TypeAlias = dict[str, list[bytes]]  # the places of leases, by the keys of their batches

_PLACES = [bytes([place]) for place in range(1, BATCH + 1)]
_SUFFIXES = [f"-{place}" for place in range(1, BATCH + 1)]


class RedisAckBroker(RedisQueueBroker):
    """At least once: what a worker has taken stays stored until it is settled.

    A fetch moves up to 120 messages into one hash with one deadline, which costs the server a
    quarter of a lease per message. A lease is named by the token of its fetch and a place in it, so
    that a late owner can change nothing.
    """

    capabilities: Capability = RedisQueueBroker.capabilities | Capability.LEASE

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return AckSubscription(self.url, queue, lease)


class AckSubscription(RedisQueueSubscription):
    """The receiving half; a store in the same Redis may end its leases."""

    keeps = True

    @property
    def keys(self) -> Sequence[str]:
        """The keys of its queue, as scripts expect them."""
        return self._keys

    @property
    def lease(self) -> float:
        """How long a lease is, in seconds."""
        return self._lease

    def batch(self) -> str:
        """Return the key of a new batch."""
        return self._batch + self._token()

    def missed(self, batch: str) -> None:
        """Know that a batch was perhaps leased: the next fetch, which is soon, gives it back."""
        if batch:
            self._missed.append(batch)
            self.wake()

    def followed(self, batch: str, body: bytes) -> Delivery:
        """Return what a store leases for us, alone in a batch."""
        [delivery] = self._deliveries([(batch, 0, [body])])
        return delivery

    def is_in_time(self, batch: str, started: float) -> bool:
        """Say whether what a store has leased since it started to is surely ours; or miss it."""
        if time.monotonic() - started <= self._lease / 3:
            return True
        self.missed(batch)  # so late an answer is none
        return False

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        return self._deliveries(self._take(limit, max_bytes))

    def fetch_next(self, limit: int, max_bytes: int, timeout: float) -> Sequence[Delivery] | None:
        """Let a claim wait on the server, behind the command that blocks.

        It takes nothing once we are woken, or gone: then our waiter is not registered any more, or
        its time is over. What it does not look at, as ended leases, is left to `fetch`.
        """
        if self._missed:
            return None
        batch, limit, room = self.batch(), min(limit, self._chunk), max(1, max_bytes)

        def claim(patience: float) -> Command:
            until = time.monotonic() + self._fetching.clock + patience
            return TAKE(self._keys, self._waiter, until, batch, limit, room, self._lease)

        try:
            replies = self._block(timeout, claim)
        except Unavailable:  # also of the connection that was to end the wait
            self._missed.append(batch)
            raise
        if not replies:
            return None
        look, _, (entries, waiter, items, clock), signs = replies
        self.unsigned = signs == 0  # asked after the claim; an error says nothing
        self._waiter = ""
        if time.monotonic() + self._fetching.clock - float(clock) > self._lease / 3:
            self._missed.append(batch)  # so late an answer is none
            return None
        found = self._taken(batch, limit, room, (entries, waiter, items, clock))
        self.emptied &= isinstance(look, list) and float(look[2]) > 0  # no lease had ended
        return self._deliveries(found) if found or self.emptied else None

    def _deliveries(self, taken: Sequence[Taken]) -> Sequence[Delivery]:
        found: list[Delivery] = []
        for batch, entries, items in taken:
            token = batch[len(self._batch) :]
            if entries:
                for n in range(entries):
                    id, lost, priority, state, body = opened(items[n])
                    lease, name = (batch, bytes([129 + n])), id or token + _SUFFIXES[n]
                    found.append(Delivery(lease, body, name, lost, state, priority=priority))
                del items[:entries]
            # map() leaves the loop to C: this is the hot path
            end = entries + len(items)
            leases = zip(repeat(batch), _PLACES[entries:end])
            found += map(Delivery, leases, items, map(token.__add__, _SUFFIXES[entries:end]))
        return found

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        acks: list[LeaseId] = []
        others: list[tuple[LeaseId, tuple[Any, ...]]] = []
        for lease, verdict in batch:
            if isinstance(verdict, Ack):
                acks.append(lease)
            else:
                others.append((lease, arguments(verdict)))
        # who is put back last is the first in line
        others.sort(key=lambda other: (other[0][0], other[0][1][0] % 128), reverse=True)
        commands: list[Command] = []
        told, owners = self.acknowledging(acks)
        if told:
            commands.append(ACK(self._keys, *told))
        if others:
            groups = [value for lease, rest in others for value in (*lease, *rest)]
            commands.append(RETURN(self._keys, *groups))
        return self._settled(commands, owners, others)

    def acknowledging(self, leases: Sequence[LeaseId]) -> tuple[list[Any], Owners]:
        """Return what `acknowledge` is told of them, and them by their owners, for `named`."""
        owners: Owners = {}
        for owner, place in leases:
            try:
                owners[owner].append(place)
            except KeyError:
                owners[owner] = [place]
        told: list[Any] = []
        for owner, places in owners.items():
            told += (owner, len(places), *places)
        return told, owners

    def named(self, owners: Owners, ordinals: Sequence[int]) -> list[LeaseId]:
        """Return the leases that `acknowledge` has told of by the ordinals of their owners."""
        names = list(owners) if ordinals else []
        return [(names[n], place) for n in ordinals for place in owners[names[n]]]

    def _settled(
        self,
        commands: list[Command],
        owners: Owners,
        others: list[tuple[LeaseId, tuple[Any, ...]]],
    ) -> Collection[LeaseId]:
        """Send; return the leases that were not ours."""
        replies = self._connections.to(self._queue).call(*commands)
        lost = self.named(owners, replies[0]) if owners else []
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
