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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from struct import Struct
from threading import Lock
from typing import Any, ClassVar

from ..brokers.redis_connection import Script
from ..brokers.redis_subscriber import Subscriber
from ..contracts import GroupStore, Inbox, Layout, Marks, Record, ResultStore
from ..errors import ConfigurationError
from . import redis_marks
from .base import Deliver, guarded, has_ended
from .redis_groups import RedisGroups
from .redis_shards import Shard, Shards

__all__ = ["RedisStore"]

_RESULT = "result:"  # in every key, before the id
_FENCE = "fsdf:fence:"
_KEPT = re.compile(rb"\d+\.\d+([FP])[^\n]*\n|\d+([FP])")
# No other channel is published on. In the middle stands what it takes: of former versions a 4, one
# notice in a message; else many.
_MANY = "8"
_INBOX = re.compile(r"fsdf:inbox:[0-9a-f]{12}([0-9a-f])[0-9a-f]{19}")
_SIZES = Struct(">II")  # of a notice: of the id and of the body, which follow
_KIND = attrgetter("layout", "expires")
_MOST = 1000  # records that one script writes
_LARGE = 1 << 20  # bytes of notices, about, that leave as one message
_FEW = 32  # records for which one round trip is worth more than what it spares the server

# KEYS: one per record; with a layout besides that of its head. ARGV: milliseconds to live ('' for
# ever); '' if all are final, else a letter for each: F, P, or U of an end whose attempt is not
# known; '1' with a layout; per record the head and the body, with a layout apart; then channels
# and what is published there if every end is to be told. Reply: the numbers of those that are not,
# because they are older than what is kept. O(records). What is of another origin than the end that
# is kept is refused, too, and told.
_WRITE = Script("""
local call, life, laid = redis.call, ARGV[1], ARGV[3] == '1'
local function keep(key, value, ...)
    if life == '' then return call('SET', key, value, ...) end
    return call('SET', key, value, 'PX', life, ...)
end
local function parts(head)
    local s, d, k, o = string.match(head, '^(%d+)%.(%d+)([FP])([^\\n]*)\\n')
    if not s then s, o, d, k = 0, '', string.match(head, '^(%d+)([FP])') end
    return tonumber(s), tonumber(d), k, o, k and #d - #tostring(tonumber(d))
end
local function judged(kept, head, letter) -- is it new, and of the same message?
    local s, d, k, o, attempt = parts(kept)
    if not k then return true, true end
    local sends, deliveries, kind, origin, mine = parts(head)
    if o ~= '' and o ~= origin then return k == 'P', false end
    if k == 'F' and kind == 'P' then return false, true end
    if s ~= sends then return s < sends, true end
    if d ~= deliveries then return d < deliveries, true end
    return k ~= kind or attempt <= (letter == 'U' and -1 or mine), true
end
local step, n, at, older = laid and 2 or 1, 0, 3, {}
for i = 1, #KEYS, step do
    n, at = n + 1, at + step
    local key, head, value = KEYS[i], ARGV[at - step + 1], ARGV[at]
    local letter = ARGV[2] == '' and 'F' or string.sub(ARGV[2], n, n)
    local new, ours = keep(key, value, 'NX'), true
    if not new then
        local kept = laid and (call('GET', KEYS[i + 1]) or '') or call('GETRANGE', key, 0, 127)
        new, ours = judged(kept, head, letter)
        if new then keep(key, value) end
    end
    if new then
        if laid then keep(KEYS[i + 1], head) end
        if laid or letter ~= 'P' then call('PUBLISH', key, value) end
    elseif ours and letter ~= 'P' then
        older[#older + 1] = n - 1
    end
end
if #older == 0 then
    for i = at + 1, #ARGV, 2 do call('PUBLISH', ARGV[i], ARGV[i + 1]) end
end
return older
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
            here = records if len(places) == len(records) else [records[n] for n in places]
            for kind, some in groupby(here, _KIND):
                alike = list(some)
                for at in range(0, len(alike), _MOST):
                    self._write(shard, *kind, alike[at : at + _MOST])

    def _write(self, shard: Shard, layout: str, expires: float, records: Sequence[Record]) -> None:
        life = "" if expires == math.inf else str(max(1, int(expires * 1000)))
        if len(records) > _FEW and not (layout or self._shards.connections.many):
            records = self._write_new(shard, life, records)
            if not records:
                return
        keys: list[str] = []
        said: list[Any] = []
        ours = shard.key(_RESULT)
        for r in records:
            head = _head(r)
            if layout:
                keys += (key := self.key_of(r.id, layout), _FENCE + key)
                said += (head, r.body)
            else:
                keys.append(ours + r.id)
                said.append(head + r.body)
        letters = "".join([("F" if r.attempt >= 0 else "U") if r.final else "P" for r in records])
        how = life, letters.strip("F") and letters, "1" if layout else ""
        [older] = shard.connection.call(_WRITE(keys, *how, *said, *_notices(records)))
        if older:
            told = _notices([r for n, r in enumerate(records) if n not in older])
            publish = [("PUBLISH", *told[n : n + 2]) for n in range(0, len(told), 2)]
            shard.connection.call(*publish)

    def _write_new(self, shard: Shard, life: str, records: Sequence[Record]) -> Sequence[Record]:
        """Write those of which nothing is kept, then tell of them; return the others.

        That is two round trips, and half the server's work: in a script a command costs it twice as
        much. A key's channel is used if somebody listens; who subscribes later finds the record.
        """
        keys, sets = _sets(shard.key(_RESULT).encode(), life, records)
        count = ("PUBSUB", "NUMSUB", *keys), ("PUBSUB", "NUMPAT")
        *stored, heard, patterns = shard.connection.call(*sets, *count)
        new, old = records, list[Record]()
        if not all(stored):
            new = [r for r, done in zip(records, stored) if done]
            old = [r for r, done in zip(records, stored) if not done]
        told = _notices(new)
        publish = [("PUBLISH", *told[n : n + 2]) for n in range(0, len(told), 2)]
        if patterns or any(heard[1::2]):
            channels = zip(keys, records, stored)
            publish += [("PUBLISH", k, _head(r) + r.body) for k, r, s in channels if s and r.final]
        if publish:
            shard.connection.call(*publish)
        return old

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

    def marks(self) -> Marks:
        return self._marks

    def groups(self) -> GroupStore:
        return self._groups


def _head(record: Record) -> bytes:
    r = record
    return _head_of(r.sends, r.deliveries, r.attempt, r.final, r.origin)


@lru_cache(64)  # what was pushed together has the same
def _head_of(sends: int, deliveries: int, attempt: int, final: bool, origin: str) -> bytes:
    head = f"{deliveries}{'F' if final else 'P'}"
    if attempt > 0:
        head = "0" * min(attempt, 64) + head
    if sends or origin:
        head = f"{sends}.{head}{origin}\n"
    return head.encode()


def _sets(prefix: bytes, life: str, records: Iterable[Record]) -> tuple[list[bytes], list[bytes]]:
    """Return the keys, and commands that set those not there; the client packs them for longer."""
    words = ["NX", *(("PX", life) if life else ())]
    begin = b"*%d\r\n$3\r\nSET\r\n" % (3 + len(words))
    end = "".join(f"\r\n${len(word)}\r\n{word}" for word in words).encode() + b"\r\n"
    keys, sets = list[bytes](), list[bytes]()
    for r in records:
        keys.append(key := prefix + r.id.encode())
        head, body = _head(r), r.body
        sizes = len(key), key, len(head) + len(body)
        sets.append(b"%b$%d\r\n%b\r\n$%d\r\n%b%b%b" % (begin, *sizes, head, body, end))
    return keys, sets


def _notices(records: Iterable[Record]) -> list[Any]:
    """Return channels of inboxes, and after each what is to be published there."""
    told: dict[str, list[Record]] = {}
    for r in records:
        if r.reply and r.final:
            told.setdefault(r.reply, []).append(r)
    found: list[Any] = []
    for reply, ended in told.items():
        if (takes := _taken(reply)) == _MANY:
            notices = [*map(_notice, ended)]
            together = 1 + len(notices) * _LARGE // sum(map(len, notices))
            for at in range(0, len(notices), together):
                found += (reply, b"".join(notices[at : at + together]))
        elif takes:
            for r in ended:
                id = r.id.encode()
                found += (reply, b"%d\n%b%b" % (len(id), id, r.body))
    return found


@lru_cache(1024)  # those who wait at present
def _taken(reply: str) -> str:
    """Return a digit that says what an address takes; "" for what is no inbox."""
    address = _INBOX.fullmatch(reply)
    return address[1] if address else ""


def _notice(record: Record) -> bytes:
    id, body = record.id.encode(), record.body
    return _SIZES.pack(len(id), len(body)) + id + body


def _noticed(said: bytes) -> Iterator[tuple[str, bytes]]:
    """Split what came to an inbox; of a former worker that is one notice, with the id's length."""
    if said[0]:  # a digit: what is written now begins with a length below 1 << 24
        size, _, rest = said.partition(b"\n")
        yield rest[: int(size)].decode(), rest[int(size) :]
        return
    at, end = 0, len(said)
    while at < end:
        id, body = _SIZES.unpack_from(said, at)
        at += _SIZES.size + id + body
        yield said[at - body - id : at - body].decode(), said[at - body : at]


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
            for id, body in _noticed(said):
                self._deliver(id, body)
            return ()  # it is never given up
        if self._layout:
            if not has_ended(self._layout, said):
                return ()
            self._deliver(self._id(channel), said)
        elif kept := _KEPT.match(said):
            self._deliver(self._id(channel), said[kept.end() :])
        else:
            for id, body in _noticed(said):  # a former worker
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
