"""The Lua of `redis_stream`: on the server's clock, on the keys of one queue only.

Every script gets the same keys, in the order of `keys_of`:

 1..10  q, {q}:s:1..9  stream  the messages by priority 0..9, waiting and leased; group `fsdf`
 11     {q}:delayed    zset    entries by due time, as for the list brokers
 12     {q}:owners     zset    consumers that hold leases, by when the first of these may have ended
 13     {q}:states     hash    "<priority>/<id>" -> "<releases> <state JSON>" of all that came back
 14     {q}:bell       stream  one entry, added whenever what waiters do not block on has changed
 15     {q}:dead       zset    ids of dead letters by time, as for the list brokers
 16     {q}:letters    hash    id -> dead letter, as for the list brokers
 17..19 {q}:s:-3 -6 -9   stream  the messages of these priorities
 20     {q}:below:delayed zset  as 11, of these three
 21     {q}:below:owners  zset  as 12, of these three

An entry is what `redis_entries` says. A message in a stream has one field, `body` (or another name,
if it is foreign); one that was released with a delay has a second one, `fsdf`: the entry's head.

A lease is (consumer, entry id, how often the entry was handed out): the group's pending list says
whether it still holds. What is released or orphaned is pending for the consumer `released`.
"""

from __future__ import annotations

from .redis_connection import ALWAYS, Script
from .redis_entries import ENTRY

__all__ = ["CLAIM", "DELAY", "keys_of", "script"]


def keys_of(queue: str) -> tuple[str, ...]:
    """Return the keys of a queue, in the order that every script expects."""
    side = ("delayed", "owners", "states", "bell", "dead", "letters")
    upper, lower = [f"s:{n}" for n in range(1, 10)], [f"s:{n}" for n in (-3, -6, -9)]
    below = ("below:delayed", "below:owners")
    return (queue, *[f"{{{queue}}}:{name}" for name in (*upper, *side, *lower, *below)])


_COMMON = (
    ENTRY
    + """
local GROUP, PARKED = 'fsdf', 'released'
local STATES, BELL, DEAD, LETTERS = KEYS[13], KEYS[14], KEYS[15], KEYS[16]
-- Two sides of a queue, each named by the place of its owners: priorities 0..9, and those below 0.
-- What is delayed stands before the owners.
local UPPER, LOWER = 12, 21
local function streams(side) if side == UPPER then return 1, 10 end return 17, 19 end
local function side_of(s) return s > 16 and LOWER or UPPER end
local function stream_of(priority) return priority < 0 and 16 - priority / 3 or priority + 1 end
local function priority_of(s) return s > 16 and 3 * (16 - s) or s - 1 end
local function mark(s, id) return priority_of(s) .. '/' .. id end
local t = redis.call('TIME'); local now = t[1] + t[2] / 1e6
local function ring()
  redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'r', '1'); redis.call('EXPIRE', BELL, 86400)
end
local function groupless(reply) return type(reply) == 'table' and reply.err
  and string.find(reply.err, 'NOGROUP', 1, true) end
local function pending(key, ...)
  local found = redis.pcall('XPENDING', key, GROUP, ...)
  if groupless(found) then return {} end
  if found.err then return redis.call('XPENDING', key, GROUP, ...) end
  return found
end
local function send(words, ids, ...)
  for first = 1, #ids, 1000 do
    local line = {unpack(words)}
    for n = first, math.min(#ids, first + 999) do line[#line + 1] = ids[n] end
    for _, word in ipairs({...}) do line[#line + 1] = word end
    redis.call(unpack(line))
  end
end
local function remove(s, ids)
  send({'XACK', KEYS[s], GROUP}, ids); send({'XDEL', KEYS[s]}, ids)
  if #ids > 0 and redis.call('EXISTS', STATES) == 1 then
    local fields = {}
    for n, id in ipairs(ids) do fields[n] = mark(s, id) end
    send({'HDEL', STATES}, fields)
  end
end
local function parts(fields)
  if #fields == 2 then return fields[2] end
  local body, meta
  for n = 1, #fields, 2 do
    if fields[n] == 'body' then body = fields[n + 1]
    elseif fields[n] == 'fsdf' then meta = fields[n + 1] end
  end
  return body or cjson.encode(fields), meta
end
local function history(s, id, times, meta)
  local origin, lost, _, state = head((meta or '') .. '\\n')
  if (origin or '') == '' then origin, lost, state = mark(s, id), 0, '' end
  local kept, releases = redis.call('HGET', STATES, mark(s, id)), 0
  local count, text = string.match(kept or '', '^(%d+) ([^\\n]*)$')
  if count and tonumber(count) > 0 then releases, state = tonumber(count), text end
  return origin, math.max(0, lost + times - 1 - releases), state, releases
end
local function forget(consumer, side)
  local first, last = streams(side)
  for s = first, last do
    redis.pcall('XGROUP', 'DELCONSUMER', KEYS[s], GROUP, consumer)
  end
  redis.call('ZREM', KEYS[side], consumer)
end
-- Forgets a consumer that holds nothing.
local function leave(consumer, side)
  local first, last = streams(side)
  for s = first, last do
    if #pending(KEYS[s], '-', '+', 1, consumer) > 0 then return end
  end
  forget(consumer, side)
end
local function uptime()
  local facts = redis.pcall('INFO', 'server') -- an ACL may hide it
  return 1000 * (type(facts) == 'string' and string.match(facts, 'uptime_in_seconds:(%d+)') or 1e9)
end
-- Goes through all that a consumer holds: parks what its lease has ended on, if told to, and notes
-- when the next one may end. What was leased before the server started gets time to be extended.
local function review(consumer, side, reap)
  local lease = (tonumber(string.match(consumer, '[%d.]+$')) or 0) * 1000
  local nearest, up = nil, nil
  local first, last = streams(side)
  for s = first, last do
    local from = '-'
    while from do
      local page, ended = pending(KEYS[s], from, '+', 1000, consumer), {}
      for _, e in ipairs(page) do
        local left = lease - e[3]
        if left <= 0 then
          up = up or uptime()
          if e[3] > up then left = lease / 3 + 1000 - up end
        end
        if left <= 0 and reap then ended[#ended + 1] = e[1]
        else nearest = math.min(nearest or left, left) end
      end
      send({'XCLAIM', KEYS[s], GROUP, PARKED, 0}, ended, 'JUSTID')
      for _, id in ipairs(ended) do redis.call('HSETNX', STATES, mark(s, id), '0 ') end
      from = #page == 1000 and '(' .. page[1000][1]
    end
  end
  if nearest then redis.call('ZADD', KEYS[side], now + nearest / 1000, consumer)
  else forget(consumer, side) end
end
"""
)


def script(text: str) -> Script:
    """Return a script on the keys of `keys_of`, with what all of them share."""
    return Script(_COMMON + text)


# ARGV consumer, limit, max bytes, lease, seconds in which nothing may be reaped, when the caller
# sent this by our clock ('': unknown). Leases messages, the highest priority first, what came back
# before what is new; due and orphaned messages join the line first (at most `limit`, and of 8
# consumers; no orphans if the call comes late, for then owners' calls do, too).
# Reply: the time, '0', then per priority {priority, id, body, id, body..}; the id of one that was
# handed out before is "id times lost origin state". Of an empty queue: the time, seconds until
# something is due, the last ids of the streams 1..10, 17..19 and of `bell`. What is below 0 is
# looked at only where there is nothing else.
# O(messages); what a consumer holds is gone through when a lease of it may have ended.
CLAIM = script(
    ALWAYS
    + """
local me, limit, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local late = ARGV[6] == '' or now - ARGV[6] > math.max(ARGV[4] / 3, 0.25)
local function bring_in(side)
  for _, e in ipairs(redis.call('ZRANGEBYSCORE', KEYS[side - 1], '-inf', now, 'LIMIT', 0, limit)) do
    local fresh = string.byte(e) == 126
    local id, _, priority, _, body = head(fresh and string.sub(e, 2) or e)
    local line = {'XADD', KEYS[stream_of(priority or 0)], '*', 'body', body or e}
    if id and not fresh then line[6] = 'fsdf'; line[7] = string.sub(e, 1, -2 - #body) end
    redis.call('ZREM', KEYS[side - 1], e)
    redis.call(unpack(line))
  end
  if tonumber(ARGV[5]) <= 0 and not late then
    for _, c in ipairs(redis.call('ZRANGEBYSCORE', KEYS[side], '-inf', now, 'LIMIT', 0, 8)) do
      review(c, side, true)
    end
  end
end
bring_in(UPPER)
local reply, count, bytes, step = {string.format('%.6f', now), '0'}, 0, 0, 0.25
local function more() return count < limit and bytes < room end
local function chunk()
  step = math.min(step * 4, limit - count, 1000)
  if count > 0 then step = math.min(step, math.floor((room - bytes) * count / (bytes + 1))) end
  step = math.max(step, 1)
  return step
end
local function read(key, n)
  local got = redis.pcall('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', n, 'STREAMS', key, '>')
  if groupless(got) then redis.call('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
  elseif not (got and got.err) then return got and got[1][2] or {} end
  got = redis.call('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', n, 'STREAMS', key, '>')
  return got and got[1][2] or {}
end
local function take(s)
  local key, items = KEYS[s], {priority_of(s)}
  local function add(id, fields, times)
    local body, meta = parts(fields)
    if times or meta then
      local origin, lost, state = history(s, id, times or 1, meta)
      id = table.concat({id, times or 1, lost, origin, state}, ' ')
    end
    count = count + 1; bytes = bytes + #body
    items[#items + 1] = id; items[#items + 1] = body
  end
  local parked, at = pending(key, '-', '+', limit - count, PARKED), 1
  while at <= #parked and more() do
    local ids, times = {}, {}
    for n = at, math.min(#parked, at + chunk() - 1) do
      local id = parked[n][1]
      ids[#ids + 1] = id; times[id] = parked[n][4] + 1
    end
    at = at + #ids
    for _, e in ipairs(redis.call('XCLAIM', key, GROUP, me, 0, unpack(ids))) do
      if e then add(e[1], e[2], times[e[1]]); times[e[1]] = nil end
    end
    for id in pairs(times) do remove(s, {id}) end -- somebody has deleted the entry itself
  end
  while more() do
    local n = chunk()
    local fresh = read(key, n)
    for _, e in ipairs(fresh) do add(e[1], e[2]) end
    if #fresh < n then break end
  end
  if #items > 1 then reply[#reply + 1] = items end
end
for s = 10, 1, -1 do
  if more() and (s == 1 or redis.call('EXISTS', KEYS[s]) == 1) then take(s) end
end
local used, sides = UPPER, {UPPER}
if count == 0 and redis.call('EXISTS', unpack(KEYS, 17, 21)) > 0 then
  used, sides[2] = LOWER, LOWER
  bring_in(LOWER)
  for s = 17, 19 do
    if more() and redis.call('EXISTS', KEYS[s]) == 1 then take(s) end
  end
end
if count > 0 then
  redis.call('ZADD', KEYS[used], 'NX', now + ARGV[4], me)
  return reply
end
local look = now + 3600
for _, side in ipairs(sides) do
  leave(me, side)
  local first = redis.call('ZRANGE', KEYS[side - 1], 0, 0, 'WITHSCORES')
  if first[2] then look = math.min(look, first[2]) end
  first = redis.call('ZRANGE', KEYS[side], 0, 0, 'WITHSCORES')
  if first[2] then look = math.min(look, math.max(first[2], now + ARGV[5])) end
end
reply[2] = tostring(look - now)
local function read_to(s)
  for _, group in ipairs(redis.call('EXISTS', KEYS[s]) == 1
      and redis.call('XINFO', 'GROUPS', KEYS[s]) or {}) do
    local facts = {}
    for n = 1, #group, 2 do facts[group[n]] = group[n + 1] end
    if facts.name == GROUP then return facts['last-delivered-id'] end
  end
  return '0-0'
end
for s = 1, 10 do reply[#reply + 1] = read_to(s) end
for s = 17, 19 do reply[#reply + 1] = sides[2] and read_to(s) or '0-0' end
local last = redis.call('XREVRANGE', BELL, '+', '-', 'COUNT', 1)
reply[#reply + 1] = last[1] and last[1][1] or '0-0'
return reply
"""
)

# ARGV 11 or 20, the key where they wait; then per message: "+<seconds from now>" or an instant,
# entry. Wakes waiters if the earliest has changed. O(log n) each.
DELAY = script("""
local delayed = KEYS[tonumber(ARGV[1])]
local before = redis.call('ZRANGE', delayed, 0, 0)[1]
for n = 2, #ARGV, 2 do
  local due = tonumber(ARGV[n])
  if string.byte(ARGV[n]) == 43 then due = now + due end
  redis.call('ZADD', delayed, due, ARGV[n + 1])
end
if redis.call('ZRANGE', delayed, 0, 0)[1] ~= before then ring() end
return 0
""")
