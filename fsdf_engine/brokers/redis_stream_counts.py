"""The Lua of `redis_stream` that counts, purges, buries and replays; its keys are those of
`redis_stream_scripts`."""

from __future__ import annotations

from .redis_connection import ALWAYS
from .redis_entries import BURIAL_ONCE, LETTER
from .redis_stream_scripts import script

__all__ = ["BURY", "PURGE", "REPLAY", "SIZE"]

_COUNTS = """
local function counts(s)
  local total, parked = 0, 0
  local summary = pending(KEYS[s])
  if summary[1] then
    total = summary[1]
    for _, pair in ipairs(summary[4] or {}) do
      if pair[1] == PARKED then parked = tonumber(pair[2]) end
    end
  end
  return redis.call('XLEN', KEYS[s]) - total + parked, total - parked
end
"""

# Reply: waiting, delayed, leased, dead. What is due waits. O(consumers + log n).
SIZE = script(
    _COUNTS
    + """
local waiting, delayed, leased = 0, 0, 0
for _, side in ipairs({UPPER, LOWER}) do
  local first, last = streams(side)
  for s = first, last do
    local w, l = counts(s)
    waiting, leased = waiting + w, leased + l
  end
  local later = KEYS[side - 1]
  local due = redis.call('ZCOUNT', later, '-inf', now)
  waiting, delayed = waiting + due, delayed + redis.call('ZCARD', later) - due
end
return {waiting, delayed, leased, redis.call('ZCARD', DEAD)}
"""
)

# ARGV names of parts. Deletes them. Reply: how many messages that were. O(messages).
PURGE = script(
    _COUNTS
    + """
local parts, gone = {}, 0
for _, part in ipairs(ARGV) do parts[part] = true end
local function drop(s, consumer)
  repeat
    local page, ids = pending(KEYS[s], '-', '+', 1000, consumer), {}
    for n, e in ipairs(page) do ids[n] = e[1] end
    remove(s, ids)
    gone = gone + #ids
  until #page < 1000
end
local function unread(s)
  local from = '-'
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[s])) do
    local facts = {}
    for n = 1, #group, 2 do facts[group[n]] = group[n + 1] end
    if facts.name == GROUP then from = '(' .. facts['last-delivered-id'] end
  end
  repeat
    local page, ids = redis.call('XRANGE', KEYS[s], from, '+', 'COUNT', 200), {}
    for n, e in ipairs(page) do ids[n] = e[1] end
    send({'XDEL', KEYS[s]}, ids)
    gone = gone + #ids
  until #page < 200
end
local function empty(s)
  if parts.leased then
    local summary = pending(KEYS[s])
    for _, pair in ipairs(summary[4] or {}) do
      if pair[1] ~= PARKED then drop(s, pair[1]) end
    end
  end
  if parts.waiting then
    drop(s, PARKED)
    local _, leased = counts(s)
    if leased == 0 then gone = gone + redis.call('XTRIM', KEYS[s], 'MAXLEN', 0)
    else unread(s) end
  end
end
for _, side in ipairs({UPPER, LOWER}) do
  local later, first, last = KEYS[side - 1], streams(side)
  if parts.waiting then gone = gone + redis.call('ZREMRANGEBYSCORE', later, '-inf', now) end
  for s = first, last do
    if redis.call('EXISTS', KEYS[s]) == 1 then empty(s) end
  end
  if parts.leased then
    for _, c in ipairs(redis.call('ZRANGE', KEYS[side], 0, -1)) do forget(c, side) end
  end
  if parts.delayed then
    gone = gone + redis.call('ZCARD', later); redis.call('UNLINK', later)
  end
end
if parts.dead then
  gone = gone + redis.call('ZCARD', DEAD); redis.call('UNLINK', DEAD, LETTERS)
end
return gone
"""
)

# ARGV per dead letter: id, body. Puts them at the end of the line as new messages. Reply: how many
# there were. O(ids * log n).
REPLAY = script(
    LETTER
    + """
local count = 0
for n = 1, #ARGV, 2 do
  local id = ARGV[n]
  local value = redis.call('HGET', LETTERS, id)
  if value then
    redis.call('XADD', KEYS[stream_of(letter_priority(value))], '*', 'body', ARGV[n + 1])
    redis.call('HDEL', LETTERS, id)
    count = count + 1
  end
  redis.call('ZREM', DEAD, id)
end
return count
"""
)

# ARGV per dead letter: id, JSON of reason and trace, priority, body. Keeps what is not there yet.
# O(log n) each.
BURY = script(
    ALWAYS
    + BURIAL_ONCE
    + """
for n = 1, #ARGV, 4 do
  bury_once(DEAD, LETTERS, now, ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3])
end
return 0
"""
)
