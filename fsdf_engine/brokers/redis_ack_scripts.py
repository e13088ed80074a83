"""The Lua of the Redis list brokers: on the server's clock, on the keys of one queue only.

Every script gets the same keys, in the order of `keys_of`:

 1  q             list    bodies, ours and foreign alike: LPUSHed, taken from the right
 2  {q}:again     list    entries of priority 0: what has been delivered before
 3  {q}:delayed   zset    entries by due time
 4  {q}:leases    zset    batch keys by deadline
 5  {q}:waiters   set     connection ids that block on `q`, to be poked when anything else changes
 6  {q}:dead      zset    ids of dead letters by time
 7  {q}:letters   hash    id -> "<JSON of reason and trace>\\n<entry>"
 8+ {q}:p:1..9    list    entries of that priority
    {q}:b:<token> hash    place -> body or entry: what one fetch leased

entry = "<id>:<leases lost>:<priority>:<state JSON>\\n<body>". An empty id is derived from the token
and the place when the entry is first leased, as for a bare body. "~" before the id: never leased.
A place is one byte: 1..120 of a bare body, 129..248 of an entry.
"""

from __future__ import annotations

from .redis_connection import ALWAYS, Script

__all__ = [
    "ACK", "BATCH", "CLAIM", "DELAY", "ENTRY", "EXTEND", "FORGET", "GIVE_BACK", "LETTERS", "LOOK",
    "PURGE", "REPLAY", "RETURN", "SCRIPTS", "SIZE", "keys_of",
]  # fmt: skip

BATCH = 120  # messages under one lease: what one HSET and one Lua unpack take well


def keys_of(queue: str) -> tuple[str, ...]:
    """Return the keys of a queue, in the order that every script expects."""
    side = ("again", "delayed", "leases", "waiters", "dead", "letters")
    connections = (f"p:{priority}" for priority in range(1, 10))
    return (queue, *[f"{{{queue}}}:{name}" for name in (*side, *connections)])


_NOW = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
"""

# What is not of this form is a body that another program has put where entries are. `join` puts a
# delayed message in line, `return_ended` what an ended lease held; where that fails, because the
# lease is none of ours, it is tried again in a minute and keeps nobody waiting.
ENTRY = """
local function head(value)
  local id, lost, priority, state, start =
    string.match(value, '^([%w/_-]*):(%d+):(%d):([^\\n]*)\\n()')
  if id and #lost < 10 then
    return id, tonumber(lost), tonumber(priority), state, string.sub(value, start)
  end
end
local function entry(id, lost, priority, state, body)
  return id .. ':' .. lost .. ':' .. priority .. ':' .. state .. '\\n' .. body
end
local function line_of(priority) return KEYS[priority > 0 and 7 + priority or 2] end
local function join(value)
  local fresh = string.byte(value) == 126
  local id, _, priority, _, body = head(fresh and string.sub(value, 2) or value)
  if not id then redis.call('RPUSH', KEYS[1], value)
  elseif not fresh then redis.call('RPUSH', line_of(priority), value)
  elseif priority == 0 then redis.call('RPUSH', KEYS[1], body)
  else redis.call('RPUSH', line_of(priority), entry('', 0, priority, '', body)) end
end
local function ours(held, kind)
  local start = string.sub(KEYS[2], 1, -6) .. kind -- {q}:again
  return string.sub(held, 1, #start) == start
end
local function return_ended(kind, from, now, bring_back)
  for _, held in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], from, now, 'LIMIT', 0, 8)) do
    if not ours(held, kind) then redis.call('ZREM', KEYS[4], held)
    elseif not pcall(bring_back, held, 1) then redis.call('ZADD', KEYS[4], now + 60, held) end
  end
end
local function bury(dead, letters, now, id, told, n, priority, body)
  while redis.call('HEXISTS', letters, id) == 1 do id = id .. '_' end -- ids of others may be equal
  redis.call('ZADD', dead, now, id)
  redis.call('HSET', letters, id, told .. '\\n' .. entry(id, n, priority, '', body))
end
local function letter(value)
  return string.sub(value, string.match(value, '^%[[^\\n]*%]\\n()') or 1)
end
"""

_ENTRY = (
    ENTRY
    + """
local function parts(batch, place, value)
  local derived = string.match(batch, '[^:]*$') .. '-' .. string.byte(place) % 128
  local id, lost, priority, state, body
  if string.byte(place) > 128 then id, lost, priority, state, body = head(value) end
  if not id then return derived, 0, 0, '', value end
  return id == '' and derived or id, lost, priority, state, body
end
local function bring_back(batch, more)
  local left, places, all = {}, {}, redis.call('HGETALL', batch)
  for i = 1, #all, 2 do
    places[#places + 1] = all[i]; left[all[i]] = all[i + 1]
  end
  table.sort(places, function(a, b) return string.byte(a) % 128 > string.byte(b) % 128 end)
  for _, place in ipairs(places) do
    local id, lost, priority, state, body = parts(batch, place, left[place])
    redis.call('RPUSH', line_of(priority), entry(id, lost + more, priority, state, body))
  end
  redis.call('UNLINK', batch); redis.call('ZREM', KEYS[4], batch)
end
"""
)

# ARGV 1 new batch, 2 limit, 3 max bytes, 4 lease ('': lease nothing), 5 age: seconds since the
# server started ('': all expired leases are reaped, '-': none), 6 how many to pop at first,
# 7 own id if registered as a waiter, 8 until when it may reap: a call that was stuck in an outage
# must not. Moves due and orphaned messages into line first: at most `limit`, and 8 batches; with an
# age only those whose lease ended after the start.
# Reply: how many of the items are entries, a waiter to poke, items, the server's clock. O(items).
CLAIM = Script(
    ALWAYS
    + _NOW
    + _ENTRY
    + """
local limit, room, chunk = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
if ARGV[7] ~= '' then redis.call('SREM', KEYS[5], ARGV[7]) end
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, limit)
if #due > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, #due - 1)
  for i = #due, 1, -1 do join(due[i]) end
end
if ARGV[5] ~= '-' and now < tonumber(ARGV[8]) then
  return_ended('b:', ARGV[5] == '' and '-inf' or now - ARGV[5], now, bring_back)
end
local items, bytes = {}, 0
local function take(list)
  while #items < limit and bytes < room do
    local asked = math.min(chunk, limit - #items)
    local got = redis.call('RPOP', list, asked)
    if not got then return end
    for i = 1, #got do
      if bytes >= room then
        for k = #got, i, -1 do redis.call('RPUSH', list, got[k]) end
        return
      end
      items[#items + 1] = got[i]; bytes = bytes + #got[i]
    end
    if #got < asked then return end
    chunk = math.min(2 * chunk, math.max(1, math.floor((room - bytes) * #items / (bytes + 1))))
  end
end
local sides = redis.call('EXISTS', KEYS[2], unpack(KEYS, 8, 16)) > 0
if sides then
  for priority = 9, 0, -1 do take(line_of(priority)) end
end
local entries = #items
take(KEYS[1])
if #items > 0 and ARGV[4] ~= '' then
  local fields = {}
  for i = 1, #items do
    fields[2 * i - 1] = string.char(i <= entries and 128 + i or i); fields[2 * i] = items[i]
  end
  redis.call('HSET', ARGV[1], unpack(fields))
  redis.call('ZADD', KEYS[4], now + ARGV[4], ARGV[1])
end
local more = #due == limit or sides and redis.call('EXISTS', KEYS[2], unpack(KEYS, 8, 16)) > 0
return {entries, more and redis.call('SRANDMEMBER', KEYS[5]), items, tostring(now)}
"""
)

# ARGV own id, age as for CLAIM. Registers the caller as a waiter unless CLAIM would find something.
# Reply: 1 if it would, else 0; seconds until a delayed message is due, and until a lease ends.
# O(log n).
LOOK = Script(
    ALWAYS
    + _NOW
    + """
local function first(key, from)
  local head = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return head[2] and tonumber(head[2]) - now or 3600
end
local from = ARGV[2] == '' and '-inf' or ARGV[2] == '-' and '+inf' or now - ARGV[2]
local due, ends = first(KEYS[3], '-inf'), first(KEYS[4], from)
local some = due <= 0 or ends <= 0
  or redis.call('EXISTS', KEYS[1], KEYS[2], unpack(KEYS, 8, 16)) > 0
if not some then
  redis.call('SADD', KEYS[5], ARGV[1])
  redis.call('EXPIRE', KEYS[5], 3600)
end
return {some and 1 or 0, tostring(due), tostring(ends)}
"""
)

# ARGV an id that no longer waits. Reply: another waiter to poke. O(1).
FORGET = Script(
    """
redis.call('SREM', KEYS[5], ARGV[1])
return redis.call('SRANDMEMBER', KEYS[5])
"""
)

# ARGV batches that were leased but never received: gives them back, not counted. O(messages).
GIVE_BACK = Script(ALWAYS + _ENTRY + "for i = #ARGV, 1, -1 do bring_back(ARGV[i], 0) end")

# ARGV per batch: key, n, n places. Ends leases for good. Reply: the ordinals of the batches of
# which nothing was ours any more (or all was settled before). A batch is lost as a whole, so what
# is not named was either ours or settled by its owner before. O(places).
ACK = Script(
    """
local lost, i, ordinal = {}, 1, 0
while i <= #ARGV do
  local batch, n = ARGV[i], ARGV[i + 1]
  if redis.call('HDEL', batch, unpack(ARGV, i + 2, i + 1 + n)) == 0 then
    lost[#lost + 1] = ordinal
  elseif redis.call('EXISTS', batch) == 0 then redis.call('ZREM', KEYS[4], batch) end
  i, ordinal = i + 2 + n, ordinal + 1
end
return lost
"""
)

# ARGV per message: batch, place, "back" or "dead", delay, state or JSON of reason and trace.
# Without a place the first is the entry itself, which nobody leases. Ends leases otherwise.
# Reply: a waiter to poke, the ordinals of those that were not ours. O(log n) each.
RETURN = Script(
    ALWAYS
    + _NOW
    + _ENTRY
    + """
local lost, poke = {}, false
for i = 1, #ARGV, 5 do
  local batch, place, delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3])
  local value = batch
  if place ~= '' then
    value = redis.call('HGET', batch, place)
    if value then
      redis.call('HDEL', batch, place)
      if redis.call('EXISTS', batch) == 0 then redis.call('ZREM', KEYS[4], batch) end
    end
  else batch, place = '', '\\129' end
  if not value then lost[#lost + 1] = (i - 1) / 5
  else
    local id, n, priority, state, body = parts(batch, place, value)
    if ARGV[i + 2] == 'dead' then
      bury(KEYS[6], KEYS[7], now, id, ARGV[i + 4], n, priority, body)
    else
      local back = entry(id, n, priority, ARGV[i + 4], body)
      if delay > 0 then redis.call('ZADD', KEYS[3], now + delay, back)
      else redis.call('RPUSH', line_of(priority), back) end
      poke = true
    end
  end
end
return {poke and redis.call('SRANDMEMBER', KEYS[5]), lost}
"""
)

# ARGV per message: "+<seconds from now>" or an instant, entry. Reply: a waiter to poke if the
# earliest has changed. O(log n) each.
DELAY = Script(
    _NOW
    + """
local before = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
for i = 1, #ARGV, 2 do
  local due = tonumber(ARGV[i])
  if string.byte(ARGV[i]) == 43 then due = now + due end
  redis.call('ZADD', KEYS[3], due, ARGV[i + 1])
end
return redis.call('ZRANGE', KEYS[3], 0, 0)[1] ~= before and redis.call('SRANDMEMBER', KEYS[5])
"""
)

# ARGV lease, batches. Reply: 1 or 0 each: still ours, deadline moved. O(log n) each.
EXTEND = Script(
    ALWAYS
    + _NOW
    + """
local ours = {}
for i = 2, #ARGV do
  local held = redis.call('ZSCORE', KEYS[4], ARGV[i])
  if held then redis.call('ZADD', KEYS[4], now + ARGV[1], ARGV[i]) end
  ours[i - 1] = held and 1 or 0
end
return ours
"""
)

# Reply: waiting, delayed, leased, dead. What is due waits. O(batches + log n).
SIZE = Script(
    _NOW
    + ENTRY
    + """
local waiting, leased = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2]), 0
for i = 8, 16 do waiting = waiting + redis.call('LLEN', KEYS[i]) end
for _, b in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  leased = leased + (ours(b, 'b:') and tonumber(redis.pcall('HLEN', b)) or 0)
end
local due = redis.call('ZCOUNT', KEYS[3], '-inf', now)
return {waiting + due, redis.call('ZCARD', KEYS[3]) - due, leased, redis.call('HLEN', KEYS[7])}
"""
)

# ARGV the parts: waiting, delayed, leased, dead. Reply: how many messages went. O(batches + due).
PURGE = Script(
    _NOW
    + ENTRY
    + """
local count = 0
for _, part in ipairs(ARGV) do
  if part == 'waiting' then
    count = count + redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2])
      + redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
    for i = 8, 16 do count = count + redis.call('LLEN', KEYS[i]) end
    redis.call('UNLINK', KEYS[1], KEYS[2], unpack(KEYS, 8, 16))
  elseif part == 'delayed' then
    count = count + redis.call('ZCARD', KEYS[3]); redis.call('UNLINK', KEYS[3])
  elseif part == 'leased' then
    for _, b in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
      local held = ours(b, 'b:') and tonumber(redis.pcall('HLEN', b))
      if held then count = count + held; redis.call('UNLINK', b) end
    end
    redis.call('UNLINK', KEYS[4])
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
    _ENTRY
    + """
local count, poke = 0, false
for n = 1, #ARGV, 2 do
  local id, body = ARGV[n], ARGV[n + 1]
  local value = redis.call('HGET', KEYS[7], id)
  if value then
    local _, _, priority = parts('', '\\129', letter(value))
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

SCRIPTS = (
    CLAIM, LOOK, FORGET, GIVE_BACK, ACK, RETURN, DELAY, EXTEND, SIZE, PURGE, LETTERS, REPLAY,
)  # fmt: skip
