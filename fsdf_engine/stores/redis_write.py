"""What stores records in Redis: the Lua, and what it is told. Keys and heads: see `redis`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from ..brokers.redis_connection import Script
from ..contracts import Record
from .redis_bulk import head_of
from .redis_notices import notices

__all__ = ["FENCE", "WRITE", "WRITING", "told_of"]

FENCE = "fsdf:fence:"
# `write` is told which of KEYS and of ARGV are its own. KEYS: one per record; with a layout besides
# that of its head. ARGV: milliseconds to live ('' for ever); '' if all are final, else a letter for
# each: F, P, or U of an end whose attempt is not known; '1' with a layout; per record the head and
# the body, with a layout apart; then channels and what is published there if every end is to be
# told. Returns the numbers of those that are not, because they are older than what is kept.
# O(records). What is of another origin than the end that is kept is refused, too, and told.
WRITING = """
local call = redis.call
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
local function write(first, last, at, to)
    local life, letters, laid = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
    local function keep(key, value, ...)
        if life == '' then return call('SET', key, value, ...) end
        return call('SET', key, value, 'PX', life, ...)
    end
    local step, n, older = laid and 2 or 1, 0, {}
    at = at + 2
    for i = first, last, step do
        n, at = n + 1, at + step
        local key, head, value = KEYS[i], ARGV[at - step + 1], ARGV[at]
        local letter = letters == '' and 'F' or string.sub(letters, n, n)
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
        for i = at + 1, to, 2 do call('PUBLISH', ARGV[i], ARGV[i + 1]) end
    end
    return older
end
"""
WRITE = Script(WRITING + "return write(1, #KEYS, 1, #ARGV)")


def told_of(
    records: Sequence[Record], prefix: str, life: str, key_of: Callable[[str], str] | None
) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of `write`; `key_of` gives a layout's keys.

    `prefix` is that of the engine's own keys; `life` milliseconds, "" for ever.
    """
    keys: list[str] = []
    said: list[Any] = []
    for r in records:
        head = head_of(r)
        if key_of:
            keys += (key := key_of(r.id), FENCE + key)
            said += (head, r.body)
        else:
            keys.append(prefix + r.id)
            said.append(head + r.body)
    letters = "".join([("F" if r.attempt >= 0 else "U") if r.final else "P" for r in records])
    how = life, letters.strip("F") and letters, "1" if key_of else ""
    return keys, [*how, *said, *chain.from_iterable(notices(records))]
