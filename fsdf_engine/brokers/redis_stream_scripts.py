"""The Lua of `redis_stream`: on the server's clock, on the keys of one queue only.

Every script gets the same keys, in the order of `keys_of`:

 1..10  q, {q}:s:1..9  stream  the messages by priority 0..9, waiting and leased; group `fsdf`
 11     {q}:delayed    zset    entries by due time, as for the list brokers
 12     {q}:owners     zset    consumers that hold leases, by when the first of these may have ended
 13     {q}:states     hash    "<priority>/<id>" -> "<releases> <state JSON>" of all that came back
 14     {q}:bell       stream  one entry, added whenever what waiters do not block on has changed
 15     {q}:dead       zset    ids of dead letters by time, as for the list brokers
 16     {q}:letters    hash    id -> "<JSON of reason and trace>\\n<entry>", as for the list brokers

entry = "<head>\\n<body>", head = "<id>:<leases lost>:<priority>:<state JSON>". "~" before the id:
never leased. A message in a stream has one field, `body` (or another name, if it is foreign); one
that was released with a delay has a second one, `fsdf`: its head.

A lease is (consumer, entry id, how often the entry was handed out): the group's pending list says
whether it still holds. What is released or orphaned is pending for the consumer `released`.
"""

from __future__ import annotations

from .redis_ack_scripts import ENTRY
from .redis_connection import ALWAYS, Script

__all__ = [
    "ACK", "CLAIM", "CLOSE", "DELAY", "EXTEND", "RETURN", "SCRIPTS", "keys_of", "script",
]  # fmt: skip


def keys_of(queue: str) -> tuple[str, ...]:
    """Return the keys of a queue, in the order that every script expects."""
    side = ("delayed", "owners", "states", "bell", "dead", "letters")
    connections = (f"s:{priority}" for priority in range(1, 10))
    return (queue, *[f"{{{queue}}}:{name}" for name in (*connections, *side)])


_COMMON = (
    ENTRY
    + """
local GROUP, PARKED = 'fsdf', 'released'
local DELAYED, OWNERS, STATES, BELL, DEAD, LETTERS =
  KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
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
    for n, id in ipairs(ids) do fields[n] = (s - 1) .. '/' .. id end
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
  if (origin or '') == '' then origin, lost, state = (s - 1) .. '/' .. id, 0, '' end
  local kept, releases = redis.call('HGET', STATES, (s - 1) .. '/' .. id), 0
  local count, text = string.match(kept or '', '^(%d+) ([^\\n]*)$')
  if count and tonumber(count) > 0 then releases, state = tonumber(count), text end
  return origin, math.max(0, lost + times - 1 - releases), state, releases
end
local function holds_nothing(consumer)
  for s = 1, 10 do
    if #pending(KEYS[s], '-', '+', 1, consumer) > 0 then return false end
  end
  return true
end
local function forget(consumer)
  for s = 1, 10 do redis.pcall('XGROUP', 'DELCONSUMER', KEYS[s], GROUP, consumer) end
  redis.call('ZREM', OWNERS, consumer)
end
local function uptime()
  local facts = redis.pcall('INFO', 'server') -- an ACL may hide it
  return 1000 * (type(facts) == 'string' and string.match(facts, 'uptime_in_seconds:(%d+)') or 1e9)
end
-- Goes through all that a consumer holds: parks what its lease has ended on, if told to, and notes
-- when the next one may end. What was leased before the server started gets time to be extended.
local function review(consumer, reap)
  local lease = (tonumber(string.match(consumer, '[%d.]+$')) or 0) * 1000
  local nearest, up = nil, nil
  for s = 1, 10 do
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
      for _, id in ipairs(ended) do redis.call('HSETNX', STATES, (s - 1) .. '/' .. id, '0 ') end
      from = #page == 1000 and '(' .. page[1000][1]
    end
  end
  if nearest then redis.call('ZADD', OWNERS, now + nearest / 1000, consumer)
  else forget(consumer) end
end
local function held(key, low, high, consumer)
  local times = {}
  while low do
    local page = pending(key, low, high, 1000, consumer)
    for _, e in ipairs(page) do times[e[1]] = e[4] end
    low = #page == 1000 and '(' .. page[1000][1]
  end
  return times
end
-- Calls visit(s, ids) for the leases in ARGV from `n` on that are ours, group by group (priority,
-- times, lowest and highest id, count, ids); returns the ordinals of the others.
local function each(n, consumer, visit)
  local lost, ordinal = {}, 0
  while n <= #ARGV do
    local s, times, count = ARGV[n] + 1, tonumber(ARGV[n + 1]), tonumber(ARGV[n + 4])
    local ours, ids = held(KEYS[s], ARGV[n + 2], ARGV[n + 3], consumer), {}
    for k = n + 5, n + 4 + count do
      local id = ARGV[k]
      if ours[id] == times then ids[#ids + 1] = id; ours[id] = nil
      else lost[#lost + 1] = ordinal end
      ordinal = ordinal + 1
    end
    visit(s, ids)
    n = n + 5 + count
  end
  return lost
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
# something is due, the last ids of the streams 1..10 and of `bell`.
# O(messages); what a consumer holds is gone through when a lease of it may have ended.
CLAIM = script(
    ALWAYS
    + """
local me, limit, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for _, e in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', DELAYED, e)
  local fresh = string.byte(e) == 126
  local id, _, s, _, body = head(fresh and string.sub(e, 2) or e)
  local line = {'XADD', KEYS[(s or 0) + 1], '*', 'body', body or e}
  if id and not fresh then line[6] = 'fsdf'; line[7] = string.sub(e, 1, -2 - #body) end
  redis.call(unpack(line))
end
local late = ARGV[6] == '' or now - ARGV[6] > math.max(ARGV[4] / 3, 0.25)
if tonumber(ARGV[5]) <= 0 and not late then
  for _, c in ipairs(redis.call('ZRANGEBYSCORE', OWNERS, '-inf', now, 'LIMIT', 0, 8)) do
    review(c, true)
  end
end
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
  local key, items = KEYS[s], {s - 1}
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
if count > 0 then
  redis.call('ZADD', OWNERS, 'NX', now + ARGV[4], me)
  return reply
end
if holds_nothing(me) then forget(me) end
local look = now + 3600
local first = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
if first[2] then look = math.min(look, first[2]) end
first = redis.call('ZRANGE', OWNERS, 0, 0, 'WITHSCORES')
if first[2] then look = math.min(look, math.max(first[2], now + ARGV[5])) end
reply[2] = tostring(look - now)
for s = 1, 10 do
  reply[s + 2] = '0-0'
  for _, group in ipairs(redis.call('EXISTS', KEYS[s]) == 1
      and redis.call('XINFO', 'GROUPS', KEYS[s]) or {}) do
    local facts = {}
    for n = 1, #group, 2 do facts[group[n]] = group[n + 1] end
    if facts.name == GROUP then reply[s + 2] = facts['last-delivered-id'] end
  end
end
first = redis.call('XREVRANGE', BELL, '+', '-', 'COUNT', 1)
reply[13] = first[1] and first[1][1] or '0-0'
return reply
"""
)

# ARGV consumer, then groups: priority, times, count, ids. Ends leases for good. Reply: ordinals of
# those that were not ours. An entry without a place in `states` has had one owner only, so that the
# pending list needs no look. O(leases).
ACK = script(
    ALWAYS
    + """
local me, lost, ordinal, n = ARGV[1], {}, 0, 2
local moved = redis.call('EXISTS', STATES) == 1
local function delete(s, ids, ordinals)
  if redis.call('XACK', KEYS[s], GROUP, unpack(ids)) == #ids then
    redis.call('XDEL', KEYS[s], unpack(ids))
    return
  end
  for k, id in ipairs(ids) do -- settled before, or purged: then the entry is gone, too
    if redis.call('XDEL', KEYS[s], id) == 0 then lost[#lost + 1] = ordinals[k] end
  end
end
while n <= #ARGV do
  local s, times, count = ARGV[n] + 1, tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2])
  local ids, ordinals, marks = {unpack(ARGV, n + 3, n + 2 + count)}, {}, {}
  for k = 1, count do ordinals[k] = ordinal + k - 1 end
  ordinal, n = ordinal + count, n + 3 + count
  if moved then
    for k, id in ipairs(ids) do marks[k] = (s - 1) .. '/' .. id end
    local kept, free, places, known = redis.call('HMGET', STATES, unpack(marks)), {}, {}, {}
    for k, id in ipairs(ids) do
      local e = kept[k] and pending(KEYS[s], id, id, 1, me)[1]
      if kept[k] and not (e and e[4] == times) or not kept[k] and times > 1 then
        lost[#lost + 1] = ordinals[k]
      else
        free[#free + 1] = id; places[#places + 1] = ordinals[k]
        if kept[k] then known[#known + 1] = marks[k] end
      end
    end
    ids, ordinals = free, places
    send({'HDEL', STATES}, known)
  elseif times > 1 then
    for k = 1, count do lost[#lost + 1] = ordinals[k] end
    ids = {}
  end
  if #ids > 0 then delete(s, ids, ordinals) end
end
if holds_nothing(me) then forget(me) end
return lost
"""
)

# ARGV consumer, groups (see `each`). Restarts the leases. Reply: ordinals of those that were not
# ours. O(what the consumer holds).
EXTEND = script(
    ALWAYS
    + """
local lost = each(2, ARGV[1], function(s, ids)
  send({'XCLAIM', KEYS[s], GROUP, ARGV[1], 0}, ids, 'JUSTID')
end)
review(ARGV[1], false)
return lost
"""
)

# ARGV consumer, then per message: priority, times, id, "back" or "dead", delay, state or JSON of
# reason and trace. Ends leases otherwise. Reply: ordinals of those not ours. O(log n) each.
RETURN = script(
    ALWAYS
    + """
local function back(s, id, times, kind, delay, text)
  local e = pending(KEYS[s], id, id, 1, ARGV[1])[1]
  if not e or e[4] ~= times then return false end
  local found = redis.call('XRANGE', KEYS[s], id, id)[1]
  if not found then remove(s, {id}) return false end -- somebody has deleted the entry itself
  local body, meta = parts(found[2])
  local origin, lost, _, releases = history(s, id, times, meta)
  if kind == 'dead' then
    remove(s, {id})
    bury(DEAD, LETTERS, now, origin, text, lost, s - 1, body)
  elseif delay > 0 then
    remove(s, {id})
    redis.call('ZADD', DELAYED, now + delay, entry(origin, lost, s - 1, text, body))
  else
    redis.call('HSET', STATES, (s - 1) .. '/' .. id, (releases + 1) .. ' ' .. text)
    redis.call('XCLAIM', KEYS[s], GROUP, PARKED, 0, id, 'JUSTID')
  end
  return true
end
local lost = {}
for n = 2, #ARGV, 6 do
  if not back(ARGV[n] + 1, ARGV[n + 2], tonumber(ARGV[n + 1]), ARGV[n + 3],
      tonumber(ARGV[n + 4]), ARGV[n + 5]) then lost[#lost + 1] = (n - 2) / 6 end
end
ring()
if holds_nothing(ARGV[1]) then forget(ARGV[1]) end
return lost
"""
)

# ARGV per message: "+<seconds from now>" or an instant, entry. Wakes waiters if the earliest has
# changed. O(log n) each.
DELAY = script("""
local before = redis.call('ZRANGE', DELAYED, 0, 0)[1]
for n = 1, #ARGV, 2 do
  local due = tonumber(ARGV[n])
  if string.byte(ARGV[n]) == 43 then due = now + due end
  redis.call('ZADD', DELAYED, due, ARGV[n + 1])
end
if redis.call('ZRANGE', DELAYED, 0, 0)[1] ~= before then ring() end
return 0
""")

# ARGV consumer. Removes the consumer if it holds nothing. O(1).
CLOSE = script("if holds_nothing(ARGV[1]) then forget(ARGV[1]) end return 0")

SCRIPTS = (ACK, CLAIM, CLOSE, DELAY, EXTEND, RETURN)
