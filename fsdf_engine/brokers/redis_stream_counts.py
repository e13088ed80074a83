"""The Lua of `redis_stream` that counts, purges and replays; keys as in `redis_stream_scripts`."""

from __future__ import annotations

from .redis_stream_scripts import script

__all__ = ["PURGE", "REPLAY", "SIZE"]

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
local waiting, leased = 0, 0
for s = 1, 10 do
  local w, l = counts(s)
  waiting, leased = waiting + w, leased + l
end
local due = redis.call('ZCOUNT', DELAYED, '-inf', now)
return {waiting + due, redis.call('ZCARD', DELAYED) - due, leased, redis.call('ZCARD', DEAD)}
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
if parts.waiting then gone = redis.call('ZREMRANGEBYSCORE', DELAYED, '-inf', now) end
for s = 1, 10 do
  if redis.call('EXISTS', KEYS[s]) == 1 then
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
end
if parts.leased then
  for _, c in ipairs(redis.call('ZRANGE', OWNERS, 0, -1)) do forget(c) end
end
if parts.delayed then
  gone = gone + redis.call('ZCARD', DELAYED); redis.call('UNLINK', DELAYED)
end
if parts.dead then
  gone = gone + redis.call('ZCARD', DEAD); redis.call('UNLINK', DEAD, LETTERS)
end
return gone
"""
)

# ARGV per dead letter: id, body. Puts them at the end of the line as new messages. Reply: how many
# there were. O(ids * log n).
REPLAY = script("""
local count = 0
for n = 1, #ARGV, 2 do
  local id = ARGV[n]
  local value = redis.call('HGET', LETTERS, id)
  if value then
    local _, _, s = head(letter(value))
    redis.call('XADD', KEYS[(s or 0) + 1], '*', 'body', ARGV[n + 1])
    redis.call('HDEL', LETTERS, id)
    count = count + 1
  end
  redis.call('ZREM', DEAD, id)
end
return count
""")
