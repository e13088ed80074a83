"""Groups in Redis: two hashes for each, and one sorted set of what is completed, for each place.

Keys `fsdf:group:<id>` (on a cluster in one of the shards that results have) hold size, grown, life,
messages, run; once completed at, by, until, claims; when over `closed`. `...:members` has the
members by their ids: place, 0 or 1 (failed), line feed, body. `fsdf:groups:<place>` has the ids of
completed groups by the ends of their claims. All times are the server's, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..brokers.redis_connection import Connection, Script
from ..contracts import Claim, Completed, Group, GroupStore, Member
from .group_form import check_size, ordered, packed, tell_unknown, too_large, unpacked
from .redis_shards import Shards

__all__ = ["RedisGroups"]

# `claimed` hands a group out if it is complete and nobody else has it. O(its members).
_COMMON = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function claimed(group, members, index, id, by, lease)
    local size, grown, at, has, until_, closed, life = unpack(redis.call(
        'HMGET', group, 'size', 'grown', 'at', 'by', 'until', 'closed', 'life'))
    if not life or closed then return end
    if not at then
        if not size or redis.call('HLEN', members) < size + (grown or 0) then return end
        at = now
    elseif has ~= by and tonumber(until_) > now then return end
    redis.call('HSET', group, 'at', at, 'by', by, 'until', now + lease)
    local claims = redis.call('HINCRBY', group, 'claims', 1)
    redis.call('ZADD', index, now + lease, id)
    redis.call('PEXPIRE', group, life)
    redis.call('PEXPIRE', members, life)
    if redis.call('PTTL', index) < tonumber(life) then redis.call('PEXPIRE', index, life) end
    return {id, tonumber(at), claims, tonumber(life), redis.call('HGET', group, 'messages'),
        redis.call('HGETALL', members)}
end
"""
# KEYS: three per group: itself, its members, the index. ARGV: holder, lease; five per group: id,
# size or '', life, messages, run or ''. Reply: what is complete. O(groups).
_OPEN = Script(
    _COMMON
    + """
local done = {}
for i = 1, #KEYS, 3 do
    local n = (i - 1) / 3 * 5 + 2
    local id, size, life, messages, run = unpack(ARGV, n + 1, n + 5)
    local kept, at, closed = unpack(redis.call('HMGET', KEYS[i], 'run', 'at', 'closed'))
    if run ~= '' and run ~= kept and (at or closed) then
        redis.call('UNLINK', KEYS[i], KEYS[i + 1])
        redis.call('ZREM', KEYS[i + 2], id)
    end
    if redis.call('EXISTS', KEYS[i]) == 0 then
        redis.call('HSET', KEYS[i], 'life', life, 'messages', messages)
        if run ~= '' then redis.call('HSET', KEYS[i], 'run', run) end
        if size ~= '' then redis.call('HSET', KEYS[i], 'size', size) end
        redis.call('PEXPIRE', KEYS[i], life)
    end
    done[#done + 1] = claimed(KEYS[i], KEYS[i + 1], KEYS[i + 2], id, ARGV[1], ARGV[2])
end
return done
"""
)
# KEYS: as above, per member. ARGV: holder, lease, most bytes, what is kept of a value beyond them
# before and after its size; four per member: group, id, place and failed, body.
# Reply: groups that are not there, what is complete. O(members).
_ADD = Script(
    _COMMON
    + """
local unknown, done, order, seen = {}, {}, {}, {}
for i = 1, #KEYS, 3 do
    local n = (i - 1) / 3 * 4 + 5
    local id, member, head, body = unpack(ARGV, n + 1, n + 4)
    local group, members = KEYS[i], KEYS[i + 1]
    local life, at, closed, bytes = unpack(redis.call(
        'HMGET', group, 'life', 'at', 'closed', 'bytes'))
    if not seen[id] then
        seen[id] = true
        if life then order[#order + 1] = {id, i} else unknown[#unknown + 1] = id end
    end
    if life and not closed then
        if not at and redis.call('HEXISTS', members, member) == 0 then
            if (bytes or 0) + #body > tonumber(ARGV[3]) then
                head, body = string.gsub(head, '0$', '1'), ARGV[4] .. #body .. ARGV[5]
            else redis.call('HINCRBY', group, 'bytes', #body) end
            redis.call('HSET', members, member, head .. '\\n' .. body)
        end
        redis.call('PEXPIRE', group, life)
        redis.call('PEXPIRE', members, life)
    end
end
for _, o in ipairs(order) do
    local i = o[2]
    done[#done + 1] = claimed(KEYS[i], KEYS[i + 1], KEYS[i + 2], o[1], ARGV[1], ARGV[2])
end
return {unknown, done}
"""
)
# KEYS: one group, as above. ARGV: holder, lease, id, size. Reply: 0 or 1 (is it there), what is
# complete. O(its members).
_SIZE = Script(
    _COMMON
    + """
if redis.call('HEXISTS', KEYS[1], 'life') == 0 then return {0, {}} end
redis.call('HSETNX', KEYS[1], 'size', ARGV[4])
return {1, {claimed(KEYS[1], KEYS[2], KEYS[3], ARGV[3], ARGV[1], ARGV[2])}}
"""
)
# KEYS: one group, as above. ARGV: by, key. Reply: 0 or 1. O(1).
_GROW = Script("""
local life, at, closed, key = unpack(redis.call(
    'HMGET', KEYS[1], 'life', 'at', 'closed', 'key:' .. ARGV[2]))
if not key then
    if not life or at or closed then return 0 end
    redis.call('HSET', KEYS[1], 'key:' .. ARGV[2], ARGV[1])
    redis.call('HINCRBY', KEYS[1], 'grown', ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], life)
redis.call('PEXPIRE', KEYS[2], life)
return 1
""")
# KEYS: an index. ARGV: holder, lease, what a group's key begins with, how many at most. Reply: what
# is complete. O(log n + members). The groups' keys are of the index's shard.
_CLAIM = Script(
    _COMMON
    + """
local done = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[4])) do
    local group = ARGV[3] .. id
    local found = claimed(group, group .. ':members', KEYS[1], id, ARGV[1], ARGV[2])
    local ends = redis.call('HMGET', group, 'until', 'closed')
    if found then done[#done + 1] = found
    elseif ends[1] and not ends[2] then redis.call('ZADD', KEYS[1], ends[1], id)
    else redis.call('ZREM', KEYS[1], id) end
end
return done
"""
)
# KEYS: as above, per group. ARGV: holder; an id per group. O(their members).
_CLOSE = Script("""
for i = 1, #KEYS, 3 do
    local life, by = unpack(redis.call('HMGET', KEYS[i], 'life', 'by'))
    if life and by == ARGV[1] then
        redis.call('UNLINK', KEYS[i + 1])
        redis.call('HDEL', KEYS[i], 'messages')
        redis.call('HSET', KEYS[i], 'closed', 1)
        redis.call('PEXPIRE', KEYS[i], life)
        redis.call('ZREM', KEYS[i + 2], ARGV[(i + 2) / 3 + 1])
    end
end
""")


class RedisGroups(GroupStore):
    """Groups in Redis 6.2 or later, alone, behind Sentinel, or a cluster.

    Over connections of its own, which open with the first group.
    """

    def __init__(self, url: str) -> None:
        self._shards = Shards(url, [_OPEN, _ADD, _SIZE, _GROW, _CLAIM, _CLOSE])

    def _each(
        self, ids: Sequence[str], place: str
    ) -> Iterator[tuple[Connection, list[int], list[str]]]:
        """Yield for each shard its connection, the places of its ids, and three keys for each."""
        for shard, places in self._shards.split(ids).items():
            keys: list[str] = []
            for n in places:
                key, index = shard.key(f"group:{ids[n]}"), shard.key(f"groups:{place}")
                keys += (key, f"{key}:members", index)
            yield shard.connection, places, keys

    def open(self, groups: Sequence[Group], claim: Claim) -> Sequence[Completed]:
        done: list[Any] = []
        for connection, places, keys in self._each([group.id for group in groups], claim.place):
            told: list[Any] = []
            for g in (groups[n] for n in places):
                check_size(g.size or 0)
                size = "" if g.size is None else g.size
                told += (g.id, size, _milliseconds(g.expires), packed(g.body, g.on_failure), g.run)
            done += connection.call(_OPEN(keys, *_mine(claim), *told))[0]
        return _handed(done)

    def add(self, members: Sequence[Member], claim: Claim) -> Sequence[Completed]:
        done: list[Any] = []
        limits = self.LARGEST, *too_large("|").split(b"|")
        for connection, places, keys in self._each([m.group for m in members], claim.place):
            told: list[Any] = []
            for m in (members[n] for n in places):
                told += (m.group, m.id, f"{m.place} {m.failed:d}", m.body)
            [(unknown, found)] = connection.call(_ADD(keys, *_mine(claim), *limits, *told))
            tell_unknown([id.decode() for id in unknown])
            done += found
        return _handed(done)

    def set_size(self, id: str, size: int, claim: Claim) -> Sequence[Completed]:
        check_size(size)
        [(connection, _, keys)] = self._each([id], claim.place)
        [(is_there, done)] = connection.call(_SIZE(keys, *_mine(claim), id, size))
        tell_unknown([] if is_there else [id])
        return _handed(done)

    def grow(self, id: str, by: int, key: str) -> bool:
        check_size(by, 1)
        [(connection, _, keys)] = self._each([id], "")
        return bool(connection.call(_GROW(keys, by, key))[0])

    def claim(self, claim: Claim, limit: int = 100) -> Sequence[Completed]:
        done: list[Any] = []
        for shard in self._shards.all():
            told = *_mine(claim), shard.key("group:"), limit - len(done)
            done += shard.connection.call(_CLAIM([shard.key(f"groups:{claim.place}")], *told))[0]
            if len(done) >= limit:
                break
        return _handed(done)

    def close(self, ids: Sequence[str], claim: Claim) -> None:
        for connection, places, keys in self._each(ids, claim.place):
            connection.call(_CLOSE(keys, claim.holder, *[ids[n] for n in places]))

    def shut(self) -> None:
        """Free every connection. Idempotent."""
        self._shards.connections.close()


def _handed(rows: Sequence[Any]) -> list[Completed]:
    found = []
    for id, at, claims, life, messages, members in rows:
        name, pairs = id.decode(), zip(members[::2], members[1::2])
        ended = ordered(_member(name, *pair) for pair in pairs)
        facts = name, at / 1000, claims, life / 1000
        found.append(Completed(*facts, *unpacked(messages), ended))
    return found


def _mine(claim: Claim) -> tuple[str, int]:
    return claim.holder, _milliseconds(claim.lease)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _member(group: str, id: bytes, kept: bytes) -> Member:
    head, _, body = kept.partition(b"\n")
    place, failed = head.split()
    return Member(group, id.decode(), body, failed == b"1", int(place))
