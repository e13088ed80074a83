"""The Lua of the Redis list brokers: on the server's clock, on the keys of one queue only.

What counts, purges, buries and replays stands in `redis_list_counts`.

Every script gets the same keys, in the order of `keys_of`:

 1  q             list    bodies, ours and foreign alike: LPUSHed, taken from the right
 2  {q}:again     list    entries of priority 0: what has been delivered before
 3  {q}:delayed   zset    entries by due time
 4  {q}:leases    zset    batch keys by deadline
 5  {q}:waiters   set     connection ids that block on `q`, to be poked when anything else changes
 6  {q}:dead      zset    ids of dead letters by time
 7  {q}:letters   hash    id -> dead letter
 8+ {q}:p:1..9    list    entries of that priority
17+ {q}:p:-3 -6 -9 list   entries of that priority
20  {q}:below:delayed zset entries of these three lines by due time
21  {q}:below:leases zset batch keys by deadline, if they hold entries of these three
    {q}:b:<token> hash    place -> body or entry: what one fetch leased

An entry is what `redis_entries` says; an empty id is derived from the token and the place. A place
is one byte: 1..120 of a bare body, 129..248 of an entry.
"""

from __future__ import annotations

from .redis_connection import ALWAYS, Script
from .redis_entries import BURIAL, ENTRY

__all__ = [
    "ACK", "ACKING", "BATCH", "CLAIM", "DELAY", "EXTEND", "FORGET", "GIVE_BACK", "LISTS", "LOOK",
    "NOW", "RETURN", "SCRIPTS", "TAKE", "keys_of",
]  # fmt: skip

BATCH = 120  # messages under one lease: what one HSET and one Lua unpack take well


def keys_of(queue: str) -> tuple[str, ...]:
    """Return the keys of a queue, in the order that every script expects."""
    side = ("again", "delayed", "leases", "waiters", "dead", "letters")
    lines = [f"p:{priority}" for priority in (*range(1, 10), -3, -6, -9)]
    below = ("below:delayed", "below:leases")
    return (queue, *[f"{{{queue}}}:{name}" for name in (*side, *lines, *below)])


NOW = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
"""

_LEASES = "local leases_of, leases_below = KEYS[4], KEYS[21]\n"
_ENDING = """
local function end_lease(held)
  if redis.call('ZREM', leases_of, held) == 0 then redis.call('ZREM', leases_below, held) end
end
"""

# `join` puts in line what is due, `return_ended` what ended leases held: where that fails, because
# a lease is none of ours, it is tried again in a minute and keeps nobody waiting.
LISTS = (
    ENTRY
    + _LEASES
    + _ENDING
    + """
local function line_of(priority)
  return KEYS[priority < 0 and 16 - priority / 3 or priority > 0 and 7 + priority or 2]
end
local function place_of(value)
  local fresh = string.byte(value) == 126
  local id, _, priority, _, body = head(fresh and string.sub(value, 2) or value)
  if not id then return KEYS[1], value end
  if not fresh then return line_of(priority), value end
  if priority == 0 then return KEYS[1], body end
  return line_of(priority), entry('', 0, priority, '', body)
end
local function join(delayed, now, limit)
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)
  if #due == 0 then return false end
  local lines, items = {}, {}
  for i, value in ipairs(due) do lines[i], items[i] = place_of(value) end
  redis.call('ZREMRANGEBYRANK', delayed, 0, #due - 1)
  for i = #due, 1, -1 do redis.call('RPUSH', lines[i], items[i]) end
  return #due == limit
end
local function ours(held, kind)
  local start = string.sub(KEYS[2], 1, -6) .. kind -- {q}:again
  return string.sub(held, 1, #start) == start
end
local function return_ended(leases, kind, from, now, bring_back)
  for _, held in ipairs(redis.call('ZRANGEBYSCORE', leases, from, now, 'LIMIT', 0, 8)) do
    if not ours(held, kind) then redis.call('ZREM', leases, held)
    elseif not pcall(bring_back, held, 1) then redis.call('ZADD', leases, now + 60, held) end
  end
end
"""
)

_ENTRY = (
    LISTS
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
  redis.call('UNLINK', batch); end_lease(batch)
end
"""
)

# ARGV 1 new batch, 2 limit, 3 max bytes, 4 lease ('': lease nothing), 5 age: seconds since the
# server started ('': all expired leases are reaped, '-': none), 6 how many to pop at first,
# 7 own id if registered as a waiter, 8 until when it may reap: a call that was stuck in an outage
# must not. Moves due and orphaned messages into line first: at most `limit`, and 8 batches; with an
# age only those whose lease ended after the start. Takes from the lines below 0 if the others are
# empty, so that a batch has its deadline in one of the two sets.
# Reply: how many of the items are entries, a waiter to poke where entries are left (0: nobody
# waits), items, the server's clock. O(items).
CLAIM = Script(
    ALWAYS
    + NOW
    + _ENTRY
    + """
local limit, room, chunk = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
if ARGV[7] ~= '' then redis.call('SREM', KEYS[5], ARGV[7]) end
local function bring_in(delayed, leases)
  local full = join(delayed, now, limit)
  if ARGV[5] ~= '-' and now < tonumber(ARGV[8]) then
    return_ended(leases, 'b:', ARGV[5] == '' and '-inf' or now - ARGV[5], now, bring_back)
  end
  return full
end
local more, leases = bring_in(KEYS[3], KEYS[4]), KEYS[4]
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
local sides = redis.call('EXISTS', KEYS[2], unpack(KEYS, 8, 21)) > 0
if sides then
  for priority = 9, 0, -1 do take(line_of(priority)) end
end
local entries = #items
take(KEYS[1])
if sides and #items < limit then
  more = bring_in(KEYS[20], KEYS[21]) or more
  if #items == 0 then
    for i = 17, 19 do take(KEYS[i]) end
    entries, leases = #items, KEYS[21]
  end
end
if #items > 0 and ARGV[4] ~= '' then
  local fields = {}
  for i = 1, #items do
    fields[2 * i - 1] = string.char(i <= entries and 128 + i or i); fields[2 * i] = items[i]
  end
  redis.call('HSET', ARGV[1], unpack(fields))
  redis.call('ZADD', leases, now + ARGV[4], ARGV[1])
end
more = more or sides and redis.call('EXISTS', KEYS[2], unpack(KEYS, 8, 19)) > 0
local waiter = more and (redis.call('SRANDMEMBER', KEYS[5]) or 0)
return {entries, waiter, items, tostring(now)}
"""
)

# The claim that waits behind a blocking command: half the work of CLAIM, and most often enough.
# ARGV 1 own id, 2 until when it may take anything, 3 new batch, 4 limit, 5 max bytes, 6 lease.
# Takes nothing if the id is not registered as a waiter any more, or bare bodies are not the first
# in line: then CLAIM follows. Reply as that of CLAIM, to poke: 0 then. O(items).
TAKE = Script(
    """
local waited = redis.call('SREM', KEYS[5], ARGV[1]) == 1 -- a write comes first, as in `ALWAYS`
"""
    + NOW
    + """
if not waited or now >= tonumber(ARGV[2])
  or redis.call('EXISTS', KEYS[2], unpack(KEYS, 8, 19)) > 0
  or redis.call('ZCOUNT', KEYS[3], '-inf', now) > 0
  or redis.call('ZCOUNT', KEYS[20], '-inf', now) > 0 then
  return {0, 0, {}, tostring(now)}
end
local items = redis.call('RPOP', KEYS[1], ARGV[4])
if not items then return {0, false, {}, tostring(now)} end
local fields, bytes, room = {}, 0, tonumber(ARGV[5])
for i = 1, #items do
  if bytes >= room then
    for k = #items, i, -1 do redis.call('RPUSH', KEYS[1], table.remove(items)) end
    break
  end
  fields[2 * i - 1] = string.char(i); fields[2 * i] = items[i]; bytes = bytes + #items[i]
end
redis.call('HSET', ARGV[3], unpack(fields))
redis.call('ZADD', KEYS[4], now + ARGV[6], ARGV[3])
return {0, false, items, tostring(now)}
"""
)

# ARGV own id, age as for CLAIM. Registers the caller as a waiter. Reply: 1 if CLAIM would find
# something, else 0; seconds until a delayed message is due, and until a lease ends. O(log n).
LOOK = Script(
    ALWAYS
    + NOW
    + """
local function first(key, from)
  local head = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return head[2] and tonumber(head[2]) - now or 3600
end
local from = ARGV[2] == '' and '-inf' or ARGV[2] == '-' and '+inf' or now - ARGV[2]
local due = math.min(first(KEYS[3], '-inf'), first(KEYS[20], '-inf'))
local ends = math.min(first(KEYS[4], from), first(KEYS[21], from))
local some = due <= 0 or ends <= 0
  or redis.call('EXISTS', KEYS[1], KEYS[2], unpack(KEYS, 8, 19)) > 0
redis.call('SADD', KEYS[5], ARGV[1])
redis.call('EXPIRE', KEYS[5], 3600)
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
# is not named was either ours or settled by its owner before. O(places). `ACKING` wants the locals
# of `_LEASES`.
ACKING = (
    _ENDING
    + """
local function acknowledge(i, last)
  local lost, ordinal = {}, 0
  while i <= last do
    local batch, n = ARGV[i], ARGV[i + 1]
    if redis.call('HDEL', batch, unpack(ARGV, i + 2, i + 1 + n)) == 0 then
      lost[#lost + 1] = ordinal
    elseif redis.call('EXISTS', batch) == 0 then end_lease(batch) end
    i, ordinal = i + 2 + n, ordinal + 1
  end
  return lost
end
"""
)
ACK = Script(_LEASES + ACKING + "return acknowledge(1, #ARGV)")

# ARGV per message: batch, place, "back" or "dead", delay, state or JSON of reason and trace.
# Without a place the first is the entry itself, which nobody leases. Ends leases otherwise.
# Reply: a waiter to poke, the ordinals of those that were not ours. O(log n) each.
RETURN = Script(
    ALWAYS
    + NOW
    + _ENTRY
    + BURIAL
    + """
local lost, poke = {}, false
for i = 1, #ARGV, 5 do
  local batch, place, delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3])
  local leased = place ~= ''
  local value = leased and redis.call('HGET', batch, place)
  if not leased then batch, place, value = '', '\\129', batch end
  if not value then lost[#lost + 1] = (i - 1) / 5
  else
    local id, n, priority, state, body = parts(batch, place, value)
    if leased then
      redis.call('HDEL', batch, place)
      if redis.call('EXISTS', batch) == 0 then end_lease(batch) end
    end
    if ARGV[i + 2] == 'dead' then
      bury(KEYS[6], KEYS[7], now, id, ARGV[i + 4], n, priority, body)
    else
      local back = entry(id, n, priority, ARGV[i + 4], body)
      if delay > 0 then redis.call('ZADD', KEYS[priority < 0 and 20 or 3], now + delay, back)
      else redis.call('RPUSH', line_of(priority), back) end
      poke = true
    end
  end
end
return {poke and redis.call('SRANDMEMBER', KEYS[5]), lost}
"""
)

# ARGV 3 or 20, the key where they wait; then per message: "+<seconds from now>" or an instant,
# entry. Reply: a waiter to poke if the earliest has changed. O(log n) each.
DELAY = Script(
    NOW
    + """
local delayed = KEYS[tonumber(ARGV[1])]
local before = redis.call('ZRANGE', delayed, 0, 0)[1]
for i = 2, #ARGV, 2 do
  local due = tonumber(ARGV[i])
  if string.byte(ARGV[i]) == 43 then due = now + due end
  redis.call('ZADD', delayed, due, ARGV[i + 1])
end
return redis.call('ZRANGE', delayed, 0, 0)[1] ~= before and redis.call('SRANDMEMBER', KEYS[5])
"""
)

# ARGV lease, batches. Reply: 1 or 0 each: still ours, deadline moved. O(log n) each.
EXTEND = Script(
    ALWAYS
    + NOW
    + """
local ours = {}
for i = 2, #ARGV do
  local leases = KEYS[4]
  local held = redis.call('ZSCORE', leases, ARGV[i])
  if not held then
    leases = KEYS[21]
    held = redis.call('ZSCORE', leases, ARGV[i])
  end
  if held then redis.call('ZADD', leases, now + ARGV[1], ARGV[i]) end
  ours[i - 1] = held and 1 or 0
end
return ours
"""
)

SCRIPTS = (CLAIM, TAKE, LOOK, FORGET, GIVE_BACK, ACK, RETURN, DELAY, EXTEND)
