"""Results in Redis: a string per task id, and channels that tell the inboxes.

Key `fsdf:result:<id>` holds a head, then the body. The head is `<sends>.<deliveries>`, `F` (final)
or `P`, the origin and a line feed; of a record that has neither sends nor an origin, as the first
version wrote them all, `<deliveries>` and `F` or `P`. The attempt is told by as many zeros before
the deliveries, up to 64: former versions read those as the same number, so both write and read side
by side. A final record is published, id and body, on the inbox's channel that the message carried
and on the key's own name, to which `watch` subscribes: the server forgets a waiter together with
its connection.

Of a record with a layout the body alone lies under the layout's key, and its head, of the same
life, under `fsdf:fence:<that key>`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock
from typing import Any, ClassVar

from ..brokers.redis_connection import Script
from ..brokers.redis_subscriber import Subscriber
from ..contracts import GroupStore, Inbox, Layout, Mark, Record, ResultStore
from ..errors import ConfigurationError
from . import redis_marks
from .base import Deliver, guarded, has_ended
from .redis_groups import RedisGroups
from .redis_shards import Shards

__all__ = ["RedisStore"]

_RESULT = "result:"  # in every key, before the id
_FENCE = "fsdf:fence:"
_KEPT = re.compile(rb"\d+\.\d+([FP])[^\n]*\n|\d+([FP])")
_INBOX = re.compile(r"fsdf:inbox:[0-9a-f]{32}")  # no other channel is published on

# KEYS: one per record; of one with a layout also that of its head. ARGV: ten per record: '1' if it
# has a layout, id, sends, deliveries, attempt, F or P, milliseconds ('' for ever), body, reply,
# origin. Reply: how many were stored. O(records). Refused are what is older, what is not final over
# final, and what is of another origin over final; the latter is told to its own reply.
_WRITE = Script("""
local function newer(s, d, k, sends, deliveries, attempt, kind)
    if k == 'F' and kind == 'P' then return false end
    local before, lost = tonumber(s) - sends, tonumber(d) - deliveries
    if before ~= 0 then return before < 0 end
    if lost ~= 0 then return lost < 0 end
    return k ~= kind or #d - #tostring(tonumber(d)) <= attempt
end
local function keep(key, value, life)
    if life == '' then
        redis.call('SET', key, value)
    else
        redis.call('SET', key, value, 'PX', life)
    end
end
local stored, at = 0, 0
for i = 1, #ARGV / 10 do
    local laid, id, sends, deliveries, attempt, kind, life, body, reply, origin =
        unpack(ARGV, i * 10 - 9, i * 10)
    at = at + 1
    local key, kept = KEYS[at], ''
    if laid == '1' then
        at = at + 1
        if redis.call('EXISTS', key) == 1 then kept = redis.call('GET', KEYS[at]) or '' end
    else
        kept = redis.call('GETRANGE', key, 0, 127)
    end
    local new, ours = true, true
    if kept ~= '' then
        local s, d, k, o = string.match(kept, '^(%d+)%.(%d+)([FP])([^\\n]*)\\n')
        if not s then s, o, d, k = 0, '', string.match(kept, '^(%d+)([FP])') end
        ours = not k or o == '' or o == origin
        new = not k or k == 'P'
        if ours and k then
            new = newer(s, d, k, tonumber(sends), tonumber(deliveries), tonumber(attempt), kind)
        end
    end
    local notice = #id .. '\\n' .. id .. body
    if new then
        local head = deliveries .. kind
        if attempt ~= '0' then head = string.rep('0', math.min(attempt, 64)) .. head end
        if sends ~= '0' or origin ~= '' then head = sends .. '.' .. head .. origin .. '\\n' end
        stored = stored + 1
        if laid == '1' then
            keep(key, body, life)
            keep(KEYS[at], head, life)
            redis.call('PUBLISH', key, body)
        else
            keep(key, head .. body, life)
            if kind == 'F' then redis.call('PUBLISH', key, notice) end
        end
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
        self._shards = Shards(url, [_WRITE, *redis_marks.SCRIPTS])
        self._marks = redis_marks.RedisMarks(self._shards)
        self._groups = RedisGroups(url)

    def add_layout(self, layout: Layout) -> None:
        if self._shards.connections.many:
            raise ConfigurationError(
                f"the keys of result layout {layout.name!r} lie anywhere in a cluster, and what is"
                " written in one step must not; use a Redis alone or behind Sentinel for results"
            )
        super().add_layout(layout)

    def key(self, id: str, layout: str = "") -> str:
        """Return the key of a result; also the channel that tells of it."""
        return self.key_of(id, layout) if layout else self._shards.of(id).key(_RESULT + id)

    def write(self, records: Sequence[Record]) -> None:
        for shard, places in self._shards.split([record.id for record in records]).items():
            keys: list[str] = []
            arguments: list[Any] = []
            ours = shard.key(_RESULT)
            for r in (records[n] for n in places):
                if r.layout:
                    keys += (key := self.key_of(r.id, r.layout), _FENCE + key)
                else:
                    keys.append(ours + r.id)
                life = "" if r.expires == math.inf else max(1, int(r.expires * 1000))
                reply = r.reply if r.reply and _INBOX.fullmatch(r.reply) else ""
                kind = "F" if r.final else "P"
                arguments += (
                    "1" if r.layout else "", r.id, r.sends, r.deliveries, r.attempt, kind, life,
                    r.body, reply, r.origin,
                )  # fmt: skip
            shard.connection.call(_WRITE(keys, *arguments))

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
            also = [("UNLINK", *(_FENCE + key for key in keys))] if layout else []
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

    def put_marks(self, marks: Sequence[Mark]) -> Collection[str]:
        return self._marks.put_marks(marks)

    def marks(self, names: Sequence[str]) -> Mapping[str, bytes]:
        return self._marks.marks(names)

    def delete_marks(self, names: Sequence[str]) -> int:
        return self._marks.delete_marks(names)

    def renew_marks(self, names: Sequence[str], life: float) -> Collection[str]:
        return self._marks.renew_marks(names, life)

    def lapsed(self, life: float, prefix: str = "") -> Sequence[Mark]:
        return self._marks.lapsed(life, prefix)

    def groups(self) -> GroupStore:
        return self._groups


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

    def _heard(self, channel: str, notice: bytes) -> Sequence[str]:
        if self._layout and channel != self.address:
            if not has_ended(self._layout, notice):
                return ()
            self._deliver(self._id(channel), notice)
            return [channel]
        size, _, rest = notice.partition(b"\n")  # of an id that may hold anything
        self._deliver(rest[: int(size)].decode(), rest[int(size) :])
        return [channel]  # a result comes once; our own address is never given up

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
