"""The Lua of the Redis list brokers that counts, purges, buries and replays; its keys are those of
`redis_ack_scripts`."""

from __future__ import annotations

from .redis_ack_scripts import DELAY, FORGET, LISTS, NOW
from .redis_connection import ALWAYS, Script
from .redis_entries import BURIAL_ONCE, ENTRY, LETTER

__all__ = ["BURY", "LETTERS", "PURGE", "REPLAY", "SCRIPTS", "SIZE"]

# Reply: waiting, delayed, leased, dead. What is due waits. O(batches + log n).
SIZE = Script(
    NOW
    + LISTS
    + """
local waiting, delayed, leased = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2]), 0, 0
for i = 8, 19 do waiting = waiting + redis.call('LLEN', KEYS[i]) end
for _, key in ipairs({KEYS[4], KEYS[21]}) do
  for _, b in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    leased = leased + (ours(b, 'b:') and tonumber(redis.pcall('HLEN', b)) or 0)
  end
end
for _, key in ipairs({KEYS[3], KEYS[20]}) do
  local due = redis.call('ZCOUNT', key, '-inf', now)
  waiting, delayed = waiting + due, delayed + redis.call('ZCARD', key) - due
end
return {waiting, delayed, leased, redis.call('HLEN', KEYS[7])}
"""
)

# ARGV the parts: waiting, delayed, leased, dead. Reply: how many messages went. O(batches + due).
PURGE = Script(
    NOW
    + LISTS
    + """
local count = 0
for _, part in ipairs(ARGV) do
  if part == 'waiting' then
    count = count + redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2])
      + redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
      + redis.call('ZREMRANGEBYSCORE', KEYS[20], '-inf', now)
    for i = 8, 19 do count = count + redis.call('LLEN', KEYS[i]) end
    redis.call('UNLINK', KEYS[1], KEYS[2], unpack(KEYS, 8, 19))
  elseif part == 'delayed' then
    count = count + redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[20])
    redis.call('UNLINK', KEYS[3], KEYS[20])
  elseif part == 'leased' then
    for _, key in ipairs({KEYS[4], KEYS[21]}) do
      for _, b in ipairs(redis.call('ZRANGE', key, 0, -1)) do
        local held = ours(b, 'b:') and tonumber(redis.pcall('HLEN', b))
        if held then count = count + held; redis.call('UNLINK', b) end
      end
      redis.call('UNLINK', key)
    end
  else
    count = count + redis.call('HLEN', KEYS[7]); redis.call('UNLINK', KEYS[6], KEYS[7])
  end
end
return count
"""
)

# ARGV offset, limit. Reply: per dead letter, the newest first: id, time, value. O(log n + limit).
LETTERS = Script(
    """
local found = {}
local ids = redis.call('ZREVRANGE', KEYS[6], ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
for i = 1, #ids, 2 do
  found[#found + 1] = ids[i]; found[#found + 1] = ids[i + 1]
  found[#found + 1] = redis.call('HGET', KEYS[7], ids[i])
end
return found
"""
)

# ARGV per dead letter: id, body. Puts them at the end of the line as new messages.
# Reply: how many there were, a waiter to poke. O(ids * log n).
REPLAY = Script(
    LISTS
    + LETTER
    + """
local count, poke = 0, false
for n = 1, #ARGV, 2 do
  local id, body = ARGV[n], ARGV[n + 1]
  local value = redis.call('HGET', KEYS[7], id)
  if value then
    local priority = letter_priority(value)
    if priority == 0 then redis.call('LPUSH', KEYS[1], body)
    else
      redis.call('LPUSH', line_of(priority), entry('', 0, priority, '', body)); poke = true
    end
    redis.call('HDEL', KEYS[7], id)
    count = count + 1
  end
  redis.call('ZREM', KEYS[6], id)
end
return {count, poke and redis.call('SRANDMEMBER', KEYS[5])}
"""
)

# ARGV per dead letter: id, JSON of reason and trace, priority, body. Keeps what is not there yet.
# O(log n) each.
BURY = Script(
    ALWAYS
    + NOW
    + ENTRY
    + BURIAL_ONCE
    + """
for n = 1, #ARGV, 4 do
  bury_once(KEYS[6], KEYS[7], now, ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3])
end
"""
)

SCRIPTS = (DELAY, FORGET, SIZE, PURGE, LETTERS, REPLAY, BURY)  # of all that publishers do
