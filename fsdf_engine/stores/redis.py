"""Results in Redis: a string per task id, and channels that tell the inboxes.

Key `fsdf:result:<id>` holds `<deliveries>` and `F` (final) or `P`, then the body. A final record is
published, id and body, on the inbox's channel that the message carried and on the key's own name,
to which `watch` subscribes: the server forgets a waiter together with its connection.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from ..brokers.redis_ear import Ear
from ..brokers.redis_line import Line, Lines, Script
from ..contracts import Inbox, Record, ResultStore
from .base import Deliver, guarded

__all__ = ["RedisStore"]

_RESULT = "result:"  # in every key, before the id
_SHARDS = 16  # hash tags on a cluster, each with one connection
_KEPT = re.compile(rb"\d+([FP])")

# KEYS: one per record. ARGV: six per record: id, deliveries, F or P, milliseconds, body, reply.
# Reply: how many were stored. O(records). Refused: what is older, and what is not final over final.
_WRITE = Script("""
local stored = 0
for i, key in ipairs(KEYS) do
    local a = i * 6 - 5
    local kept = redis.call('GETRANGE', key, 0, 20)
    local deliveries, kind = string.match(kept, '^(%d+)([FP])')
    local kind_now = ARGV[a + 2]
    if not kind or (tonumber(deliveries) <= tonumber(ARGV[a + 1])
            and (kind == 'P' or kind_now == 'F')) then
        redis.call('SET', key, ARGV[a + 1] .. kind_now .. ARGV[a + 4], 'PX', ARGV[a + 3])
        stored = stored + 1
        if kind_now == 'F' then
            local notice = #ARGV[a] .. '\\n' .. ARGV[a] .. ARGV[a + 4]
            if ARGV[a + 5] ~= '' then
                redis.call('PUBLISH', ARGV[a + 5], notice)
            end
            redis.call('PUBLISH', key, notice)
        end
    end
end
return stored
""")


class RedisStore(ResultStore):
    """Results in Redis 6.2 or later, alone, behind Sentinel, or a cluster."""

    setting: ClassVar[str] = "REDIS_URL"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lines = Lines(url, [_WRITE])
        self._cluster = "+cluster" in url.partition("://")[0]

    def key(self, id: str) -> str:
        """Return the key of a result; also the channel that tells of it."""
        if not self._cluster:
            return f"fsdf:{_RESULT}{id}"
        shard = zlib.crc32(id.encode("utf-8", "surrogatepass")) % _SHARDS
        return f"{{fsdf:{shard}}}:{_RESULT}{id}"

    def _by_line(self, ids: Sequence[str]) -> Mapping[Line, list[int]]:
        """Return the positions of the ids by the connection that leads to them."""
        if not self._cluster:
            return {self._lines.line(): list(range(len(ids)))}
        groups: defaultdict[Line, list[int]] = defaultdict(list)
        for n, id in enumerate(ids):
            groups[self._lines.line(self.key(id).partition("}")[0] + "}")].append(n)
        return groups

    def write(self, records: Sequence[Record]) -> None:
        for line, places in self._by_line([record.id for record in records]).items():
            arguments: list[Any] = []
            for r in (here := [records[n] for n in places]):
                life, kind = max(1, int(r.expires * 1000)), "F" if r.final else "P"
                arguments += (r.id, r.deliveries, kind, life, r.body, r.reply)
            line.call(_WRITE([self.key(r.id) for r in here], *arguments))

    def read(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        return self.stored(ids, final=False)

    def stored(self, ids: Sequence[str], *, final: bool) -> dict[str, bytes]:
        """Return the bodies of these, of the final ones only if so asked."""
        found: dict[str, bytes] = {}
        for line, places in self._by_line(ids).items():
            here = [ids[n] for n in places]
            [values] = line.call(("MGET", *map(self.key, here))) if here else [()]
            for id, value in zip(here, values):
                kept = _KEPT.match(value) if value else None
                if kept and (not final or kept[1] == b"F"):
                    found[id] = value[kept.end() :]
        return found

    def forget(self, ids: Sequence[str]) -> int:
        count = 0
        for line, places in self._by_line(ids).items():
            if places:
                count += line.call(("UNLINK", *[self.key(ids[n]) for n in places]))[0]
        return count

    def inbox(
        self, deliver: Callable[[str, bytes], None], pending: Callable[[], Sequence[str]]
    ) -> Inbox:
        return _RedisInbox(self, guarded(deliver), pending)

    def close(self) -> None:
        self._lines.close()


class _RedisInbox(Inbox):
    def __init__(
        self, store: RedisStore, deliver: Deliver, pending: Callable[[], Sequence[str]]
    ) -> None:
        self._store, self._deliver, self._pending = store, deliver, pending
        self._ear = Ear(store._lines, store.url, self._heard, self._subscribed)
        self.address = self._ear.address
        self._ear.start()

    def watch(self, ids: Sequence[str]) -> None:
        self._ear.hear([self._store.key(id) for id in ids])

    def _heard(self, channel: str, notice: bytes) -> Sequence[str]:
        size, _, rest = notice.partition(b"\n")  # of an id that may hold anything
        self._deliver(rest[: int(size)].decode(), rest[int(size) :])
        return [channel]  # a result comes once; our own address is never given up

    def _subscribed(self, channels: Collection[str]) -> Sequence[str]:
        """Deliver the results that came before these subscriptions."""
        ids = {channel.partition(_RESULT)[2] for channel in channels if channel != self.address}
        if self.address in channels:
            ids.update(self._pending())
        found = self._store.stored(list(ids), final=True)
        for id, body in found.items():
            self._deliver(id, body)
        return [self._store.key(id) for id in found]

    def close(self) -> None:
        self._ear.close()
