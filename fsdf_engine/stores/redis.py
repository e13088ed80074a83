"""Results in Redis: a string per task id, and channels that tell the inboxes.

Key `fsdf:result:<id>` holds a head, then the body. The head is `<sends>.<deliveries>`, `F` (final)
or `P`, the origin and a line feed; of a record that has neither sends nor an origin, as earlier
versions wrote them all, `<deliveries>` and `F` or `P`. A final record is published, id and body, on
the inbox's channel that the message carried and on the key's own name, to which `watch` subscribes:
the server forgets a waiter together with its connection.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from ..brokers.redis_connection import Connection, Connections, Script
from ..brokers.redis_subscriber import Subscriber
from ..contracts import Inbox, Record, ResultStore
from .base import Deliver, guarded

__all__ = ["RedisStore"]

_RESULT = "result:"  # in every key, before the id
_SHARDS = 16  # hash tags on a cluster, each with one connection
_KEPT = re.compile(rb"\d+\.\d+([FP])[^\n]*\n|\d+([FP])")
_INBOX = re.compile(r"fsdf:inbox:[0-9a-f]{32}")  # no other channel is published on

# KEYS: one per record. ARGV: eight per record: id, sends, deliveries, F or P, milliseconds, body,
# reply, origin. Reply: how many were stored. O(records). Refused are what is older, what is not
# final over final, and what is of another origin over final; the latter is told to its own reply.
_WRITE = Script("""
local stored = 0
for i, key in ipairs(KEYS) do
    local id, sends, deliveries, kind, life, body, reply, origin = unpack(ARGV, i * 8 - 7, i * 8)
    local kept = redis.call('GETRANGE', key, 0, 127)
    local new, ours = true, true
    if kept ~= '' then
        local s, d, k, o = string.match(kept, '^(%d+)%.(%d+)([FP])([^\\n]*)\\n')
        if not s then s, o, d, k = 0, '', string.match(kept, '^(%d+)([FP])') end
        ours = not k or o == '' or o == origin
        new = not k or k == 'P'
        if ours and k then
            local before = tonumber(s) - tonumber(sends)
            new = (before < 0 or before == 0 and tonumber(d) <= tonumber(deliveries))
                and (k == 'P' or kind == 'F')
        end
    end
    local notice = #id .. '\\n' .. id .. body
    if new then
        local head = sends .. '.' .. deliveries .. kind .. origin .. '\\n'
        if sends == '0' and origin == '' then head = deliveries .. kind end
        redis.call('SET', key, head .. body, 'PX', life)
        stored = stored + 1
        if kind == 'F' then redis.call('PUBLISH', key, notice) end
    end
    if kind == 'F' and reply ~= '' and (new or not ours) then
        redis.call('PUBLISH', reply, notice)
    end
end
return stored
""")


class RedisStore(ResultStore):
    """Results in Redis 6.2 or later, alone, behind Sentinel, or a cluster."""

    setting: ClassVar[str] = "REDIS_URL"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connections = Connections(url, [_WRITE])
        self._cluster = "+cluster" in url.partition("://")[0]

    def key(self, id: str) -> str:
        """Return the key of a result; also the channel that tells of it."""
        if not self._cluster:
            return f"fsdf:{_RESULT}{id}"
        shard = zlib.crc32(id.encode("utf-8", "surrogatepass")) % _SHARDS
        return f"{{fsdf:{shard}}}:{_RESULT}{id}"

    def _by_connection(self, ids: Sequence[str]) -> Mapping[Connection, list[int]]:
        """Return the positions of the ids by the connection that leads to them."""
        if not self._cluster:
            return {self._connections.to(): list(range(len(ids)))}
        groups: defaultdict[Connection, list[int]] = defaultdict(list)
        for n, id in enumerate(ids):
            groups[self._connections.to(self.key(id).partition("}")[0] + "}")].append(n)
        return groups

    def write(self, records: Sequence[Record]) -> None:
        for connection, places in self._by_connection([record.id for record in records]).items():
            arguments: list[Any] = []
            for r in (here := [records[n] for n in places]):
                life, kind = max(1, int(r.expires * 1000)), "F" if r.final else "P"
                reply = r.reply if _INBOX.fullmatch(r.reply) else ""
                arguments += (r.id, r.sends, r.deliveries, kind, life, r.body, reply, r.origin)
            connection.call(_WRITE([self.key(r.id) for r in here], *arguments))

    def read(self, ids: Sequence[str], *, final: bool = False) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for connection, places in self._by_connection(ids).items():
            here = [ids[n] for n in places]
            [values] = connection.call(("MGET", *map(self.key, here))) if here else [()]
            for id, value in zip(here, values):
                kept = _KEPT.match(value) if value else None
                if kept and (not final or b"F" in (kept[1], kept[2])):
                    found[id] = value[kept.end() :]
        return found

    def forget(self, ids: Sequence[str]) -> int:
        count = 0
        for connection, places in self._by_connection(ids).items():
            if places:
                count += connection.call(("UNLINK", *[self.key(ids[n]) for n in places]))[0]
        return count

    def inbox(
        self, deliver: Callable[[str, bytes], None], pending: Callable[[], Sequence[str]]
    ) -> Inbox:
        return _RedisInbox(self, guarded(deliver), pending)

    def close(self) -> None:
        self._connections.close()


class _RedisInbox(Inbox):
    def __init__(
        self, store: RedisStore, deliver: Deliver, pending: Callable[[], Sequence[str]]
    ) -> None:
        self._store, self._deliver, self._pending = store, deliver, pending
        self._subscriber = Subscriber(store._connections, store.url, self._heard, self._subscribed)
        self.address = self._subscriber.address
        self._subscriber.start()

    def watch(self, ids: Sequence[str]) -> None:
        self._subscriber.hear([self._store.key(id) for id in ids])

    def _heard(self, channel: str, notice: bytes) -> Sequence[str]:
        size, _, rest = notice.partition(b"\n")  # of an id that may hold anything
        self._deliver(rest[: int(size)].decode(), rest[int(size) :])
        return [channel]  # a result comes once; our own address is never given up

    def _subscribed(self, channels: Collection[str]) -> Sequence[str]:
        """Deliver the results that came before these subscriptions."""
        ids = {channel.partition(_RESULT)[2] for channel in channels if channel != self.address}
        if self.address in channels:
            ids.update(self._pending())
        found = self._store.read(list(ids), final=True)
        for id, body in found.items():
            self._deliver(id, body)
        return [self._store.key(id) for id in found]

    def doubt(self) -> None:
        self._subscriber.doubt()

    def close(self) -> None:
        self._subscriber.close()
