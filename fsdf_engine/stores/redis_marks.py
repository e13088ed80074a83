"""Marks in Redis: a string each, with a time to live; the watched ones live until they are deleted.

Key `fsdf:mark:<name>`, and `fsdf:marks:watched`, a sorted set of the watched ones' names by the
instant, in milliseconds of the server's clock, at which their life ends. On a cluster there is
one such set in each shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..brokers.redis_connection import Command, Connection, Script
from ..contracts import Mark, Marks
from ..errors import Unavailable
from .base import LAPSED
from .redis_shards import Shards

__all__ = ["PUTTING", "SCRIPTS", "RedisMarks"]

_MARK, _WATCHED = "mark:", "marks:watched"
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# `put` is told which of KEYS: the set, then one per mark; and where in ARGV they begin: four per
# mark: name, value, milliseconds, '1' if watched. Returns the names that were absent.
# O(marks log watched).
PUTTING = (
    "local function put(first, last, at)"
    + _NOW
    + """
    local absent = {}
    for i = first + 1, last do
        local name, value, life, watched = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
        local done
        at = at + 4
        if watched == '1' then
            done = redis.call('SET', KEYS[i], value, 'NX')
            if done then redis.call('ZADD', KEYS[first], now + life, name) end
        else
            done = redis.call('SET', KEYS[i], value, 'NX', 'PX', life)
        end
        if done then absent[#absent + 1] = name end
    end
    return absent
end
"""
)
_PUT = Script(PUTTING + "return put(1, #KEYS, 1)")

# KEYS: the set, then one per mark. ARGV: the names. Reply: how many there were.
# O(marks log watched).
_DELETE = Script("""
local deleted = 0
for i = 2, #KEYS do
    deleted = deleted + redis.call('UNLINK', KEYS[i])
    redis.call('ZREM', KEYS[1], ARGV[i - 1])
end
return deleted
""")

# KEYS: the set, then one per mark. ARGV: milliseconds, the names. Reply: those that are there.
# O(marks log watched).
_RENEW = Script(
    _NOW
    + """
local renewed = {}
for i = 2, #KEYS do
    local name = ARGV[i]
    local there = redis.call('ZSCORE', KEYS[1], name)
    if there then
        redis.call('ZADD', KEYS[1], now + ARGV[1], name)
    else
        there = redis.call('PEXPIRE', KEYS[i], ARGV[1]) == 1
    end
    if there then renewed[#renewed + 1] = name end
end
return renewed
"""
)

# KEYS: the set. ARGV: milliseconds, what names begin with, what keys begin with, how many at most.
# Reply: name, value, ... A watched mark that the server has evicted is forgotten. O(lapsed).
_LAPSED = Script(
    _NOW
    + """
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
    if #found >= ARGV[4] * 2 then break end
    if string.sub(name, 1, #ARGV[2]) == ARGV[2] then
        local value = redis.call('GET', ARGV[3] .. name)
        if value then
            redis.call('ZADD', KEYS[1], now + ARGV[1], name)
            found[#found + 1] = name
            found[#found + 1] = value
        else
            redis.call('ZREM', KEYS[1], name)
        end
    end
end
return found
"""
)
SCRIPTS = (_PUT, _DELETE, _RENEW, _LAPSED)


class RedisMarks(Marks):
    """Marks beside the results of a Redis; on a cluster a call is a round trip per shard."""

    def __init__(self, shards: Shards) -> None:
        self._shards, self._ended = shards, deque[str]()

    def _each(self, names: Sequence[str]) -> Iterator[tuple[Connection, list[int], list[str]]]:
        """Yield for each shard its connection, the places of its names, the set and their keys."""
        for shard, places in self._shards.split(names).items():
            keys = [shard.key(_WATCHED), *(shard.key(_MARK + names[n]) for n in places)]
            yield shard.connection, places, keys

    def put(self, marks: Sequence[Mark]) -> Collection[str]:
        put: list[str] = []
        for connection, places, keys in self._each([mark.name for mark in marks]):
            said = _said(marks[n] for n in places)
            put += _names(connection.call(_PUT(keys, *said))[0])
        return put

    def told(self, marks: Sequence[Mark]) -> tuple[list[str], list[Any]]:
        """Return the keys and arguments of `put`, on a server alone."""
        [(_, _, keys)] = self._each([mark.name for mark in marks])
        return keys, _said(marks)

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for connection, places, keys in self._each(names):
            [values] = connection.call(("MGET", *keys[1:]))
            found.update((names[n], v) for n, v in zip(places, values) if v is not None)
        return found

    def delete_soon(self, names: Sequence[str]) -> None:
        self._ended.extend(names)

    def ended(self) -> list[str]:
        """Take the names of what is to be deleted soon; any thread."""
        names = list[str]()
        with suppress(IndexError):
            while True:
                names.append(self._ended.popleft())
        return names

    def deletion(self, names: Sequence[str]) -> Command:
        """Return what deletes them, on a server alone."""
        [(_, _, keys)] = self._each(names)
        return _DELETE(keys, *names)

    def delete(self, names: Sequence[str]) -> int:
        soon = self.ended()
        try:
            self._delete(soon)
            return self._delete(names)
        except Unavailable:
            self._ended.extend(soon)
            raise

    def _delete(self, names: Sequence[str]) -> int:
        count = 0
        for connection, places, keys in self._each(names):
            count += connection.call(_DELETE(keys, *[names[n] for n in places]))[0]
        return count

    def renew(self, names: Sequence[str], life: float) -> Collection[str]:
        found: list[str] = []
        for connection, places, keys in self._each(names):
            arguments = _milliseconds(life), *[names[n] for n in places]
            found += _names(connection.call(_RENEW(keys, *arguments))[0])
        return found

    def lapsed(self, life: float, prefix: str = "") -> Sequence[Mark]:
        found: list[Mark] = []
        for shard in self._shards.all():
            arguments = _milliseconds(life), prefix, shard.key(_MARK), LAPSED - len(found)
            [reply] = shard.connection.call(_LAPSED([shard.key(_WATCHED)], *arguments))
            names = _names(reply[::2])
            found += [Mark(name, v, life, watched=True) for name, v in zip(names, reply[1::2])]
        return found


def _said(marks: Iterable[Mark]) -> list[Any]:
    said: list[Any] = []
    for m in marks:
        said += (m.name, m.value, _milliseconds(m.life), int(m.watched))
    return said


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _names(reply: Sequence[bytes]) -> list[str]:
    return [name.decode() for name in reply]
