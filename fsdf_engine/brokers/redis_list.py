"""Redis lists without confirmation: at most once. Redis >= 6.2."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from ..contracts import Delivery, LeaseId, Settlement, Subscription
from ..outcomes import Ack
from .redis_ack_scripts import RETURN
from .redis_connection import Unanswered
from .redis_entries import arguments, bare, opened
from .redis_queue import RedisQueueBroker, RedisQueueSubscription

__all__ = ["RedisBroker"]

_log = logging.getLogger("fsdf.redis")


class RedisBroker(RedisQueueBroker):
    """At most once: what a worker has taken is lost when the worker dies, up to its prefetch.

    The fastest, and right where a lost message does not matter; take `REDIS_ACK_ABLE` otherwise.
    Both keep a queue in the same keys, so one can replace the other at any time. A message that is
    released or dead-lettered is stored again by `settle`; while it is out, nothing counts it, and
    what `settle` has sent without an answer is not sent again.
    """

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _ListSubscription(self.url, queue, lease)


class _ListSubscription(RedisQueueSubscription):
    """A lease is the message itself: ((token, place in the fetch, head of its entry), body)."""

    keeps = False

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        found: list[Delivery] = []
        for batch, entries, items in self._take(limit, max_bytes):
            token = batch[len(self._batch) :]
            for n, item in enumerate(items):
                known, lost, priority, state, body = opened(item) if n < entries else bare(item)
                id = known or f"{token}-{n + 1}"
                lease = (token, n, f"{id}:{lost}:{priority}:"), body
                found.append(Delivery(lease, body, id, lost, state, priority=priority))
        return found

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        told: list[Any] = []
        kept = [(lease, verdict) for lease, verdict in batch if not isinstance(verdict, Ack)]
        # who is put back last is the first in line
        kept.sort(key=lambda pair: pair[0][0][:2], reverse=True)
        for ((_, _, head), body), verdict in kept:
            told += (head.encode() + b"\n" + body, "", *arguments(verdict))
        if told:
            try:
                [(waiter, _)] = self._connections.to(self._queue).call(RETURN(self._keys, *told))
                self._poke(waiter)
            except Unanswered:  # perhaps they are stored: a repeat could make two of each
                _log.warning("%d messages of %s are perhaps lost", len(kept), self._queue)
        return ()

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        return leases
