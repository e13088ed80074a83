"""Results in Redis: a string per task id, and channels that tell the inboxes.

Key `fsdf:result:<id>` holds a head, then the body. The head is `<sends>.<deliveries>`, `F` (final)
or `P`, the origin and a line feed; of a record that has neither sends nor an origin, as the first
version wrote them all, `<deliveries>` and `F` or `P`. The attempt is told by as many zeros before
the deliveries, up to 64: former versions read those as the same number, so both write and read side
by side. A final record is published on the key's own name, to which `watch` subscribes (of many at
a time those to which somebody listens), and by notices, many in one message, on the inbox's channel
that its own message carried: the server forgets a waiter together with its connection.

Of a record with a layout the body alone lies under the layout's key, and its head, of the same
life, under `fsdf:fence:<that key>`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from threading import Lock
from typing import Any, ClassVar

from ..brokers.redis_connection import Connection
from ..brokers.redis_subscriber import Subscriber
from ..contracts import (
    GroupStore,
    Inbox,
    Layout,
    Record,
    ResultStore,
    Subscription,
    Together,
)
from ..errors import ConfigurationError
from . import redis_marks, redis_together
from .base import Deliver, guarded, has_ended
from .redis_bulk import Bulk
from .redis_groups import RedisGroups
from .redis_notices import noticed, notices
from .redis_shards import Shard, Shards
from .redis_write import FENCE, WRITE, told_of

__all__ = ["RedisStore"]

_RESULT = "result:"  # in every key, before the id
_KEPT = re.compile(rb"\d+\.\d+([FP])[^\n]*\n|\d+([FP])")
_KIND = attrgetter("layout", "expires")
_MOST = 1000  # records that one script writes
_FEW = 32  # records for which a script is worth more than what plain commands spare the server


class RedisStore(ResultStore):
    """Results in Redis 6.2 or later, alone, behind Sentinel, or a cluster."""

    setting: ClassVar[str] = "REDIS_URL"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._shards = Shards(url, [WRITE, *redis_together.SCRIPTS, *redis_marks.SCRIPTS])
        self._marks = redis_marks.RedisMarks(self._shards)
        self._groups = RedisGroups(url)
        self._bulks = {"": Bulk("fsdf:" + _RESULT)}  # by layout

    def add_layout(self, layout: Layout) -> None:
        if self._shards.connections.many:
            raise ConfigurationError(
                f"the keys of result layout {layout.name!r} lie anywhere in a cluster, and what is"
                " written in one step must not; use a Redis alone or behind Sentinel for results"
            )
        super().add_layout(layout)
        self._bulks.setdefault(layout.name, Bulk(layout.prefix, FENCE))

    def key(self, id: str, layout: str = "") -> str:
        """Return the key of a result; also the channel that tells of it."""
        return self.key_of(id, layout) if layout else self._shards.of(id).key(_RESULT + id)

    def write(self, records: Sequence[Record]) -> None:
        for shard, places in self._shards.split([record.id for record in records]).items():
            here = records if len(places) == len(records) else [records[n] for n in places]
            for kind, some in groupby(here, _KIND):
                alike = list(some)
                for at in range(0, len(alike), _MOST):
                    self._write(shard, *kind, alike[at : at + _MOST])

    def _write(self, shard: Shard, layout: str, expires: float, records: Sequence[Record]) -> None:
        # the nodes of a cluster count listeners apart
        bulk = None if self._shards.connections.many else self._bulks.get(layout)
        if bulk and len(records) > _FEW:
            records = bulk.write(shard.connection, _life(expires), records)
            if not records:
                return
        keys, said = self.told(records)
        [older] = shard.connection.call(WRITE(keys, *said))
        if older:
            self.tell([r for n, r in enumerate(records) if n not in older])

    def told(self, records: Sequence[Record]) -> tuple[list[str], list[Any]]:
        """Return what `write` is told of records of one shard, with one layout and life."""
        first = records[0]
        key_of = partial(self.key_of, layout=first.layout) if first.layout else None
        prefix = self._shards.of(first.id).key(_RESULT)
        return told_of(records, prefix, _life(first.expires), key_of)

    def tell(self, records: Sequence[Record]) -> None:
        """Tell the inboxes of ends, where others beside them were refused. Blocks."""
        if publish := [("PUBLISH", *notice) for notice in notices(records)]:
            self._shards.of(records[0].id).connection.call(*publish)

    def read(
        self, ids: Sequence[str], *, final: bool = False, layout: str = ""
    ) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for shard, places in self._shards.split(ids).items():
            here = [ids[n] for n in places]
            [values] = shard.connection.call(("MGET", *[self.key(id, layout) for id in here]))
            there = [(id, value) for id, value in zip(here, values) if value is not None]
            if layout:
                known = self.layouts[layout]
                found.update((id, v) for id, v in there if not final or has_ended(known, v))
                continue
            for id, value in there:
                kept = _KEPT.match(value)
                if kept and (not final or b"F" in (kept[1], kept[2])):
                    found[id] = value[kept.end() :]
        return found

    def forget(self, ids: Sequence[str], *, layout: str = "") -> int:
        count = 0
        for shard, places in self._shards.split(ids).items():
            keys = [self.key(ids[n], layout) for n in places]
            also = [("UNLINK", *(FENCE + key for key in keys))] if layout else []
            count += shard.connection.call(("UNLINK", *keys), *also)[0]
        return count

    def inbox(
        self,
        deliver: Callable[[str, bytes], None],
        pending: Callable[[], Sequence[str]],
        *,
        layout: str = "",
    ) -> Inbox:
        return _RedisInbox(self, guarded(deliver), pending, layout)

    def close(self) -> None:
        self._shards.connections.close()
        self._groups.shut()

    def together(self, subscription: Subscription) -> Together | None:
        return redis_together.together(self, subscription)

    def connection(self) -> Connection:
        """Return the calling thread's, of a server alone."""
        return self._shards.connections.to()

    def marks(self) -> redis_marks.RedisMarks:
        return self._marks

    def groups(self) -> GroupStore:
        return self._groups


def _life(expires: float) -> str:
    return "" if expires == math.inf else str(max(1, int(expires * 1000)))


class _RedisInbox(Inbox):
    def __init__(
        self,
        store: RedisStore,
        deliver: Deliver,
        pending: Callable[[], Sequence[str]],
        layout: str,
    ) -> None:
        self._store, self._deliver, self._pending = store, deliver, pending
        self._layout = store.layouts[layout] if layout else None
        self._subscriber = Subscriber(
            store._shards.connections, store.url, self._heard, self._subscribed
        )
        self.address = self._subscriber.address
        self._subscriber.start()

    def _key(self, id: str) -> str:
        return self._store.key(id, self._layout.name if self._layout else "")

    def _id(self, key: str) -> str:
        return key[len(self._layout.prefix) :] if self._layout else key.partition(_RESULT)[2]

    def watch(self, ids: Sequence[str]) -> None:
        self._subscriber.hear([self._key(id) for id in ids])

    def _heard(self, channel: str, said: bytes) -> Sequence[str]:
        if channel == self.address:
            for id, body in noticed(said):
                self._deliver(id, body)
            return ()  # it is never given up
        if self._layout:
            if not has_ended(self._layout, said):
                return ()
            self._deliver(self._id(channel), said)
        elif kept := _KEPT.match(said):
            self._deliver(self._id(channel), said[kept.end() :])
        else:
            for id, body in noticed(said):  # a former worker
                self._deliver(id, body)
        return [channel]  # a result comes once

    def _subscribed(self, channels: Collection[str]) -> Sequence[str]:
        """Deliver the results that came before these subscriptions."""
        ids = {self._id(channel) for channel in channels if channel != self.address}
        if self.address in channels:
            ids.update(self._pending())
        layout = self._layout.name if self._layout else ""
        found = self._store.read(list(ids), final=True, layout=layout)
        for id, body in found.items():
            self._deliver(id, body)
        return [self._key(id) for id in found]

    def doubt(self) -> None:
        self._subscriber.doubt()

    def attend(self, done: Lock, found: Sequence[bytes], timeout: float) -> bool:
        return self._subscriber.attend(done, found, timeout)

    def resume(self) -> None:
        self._subscriber.resume()

    def close(self) -> None:
        self._subscriber.close()
