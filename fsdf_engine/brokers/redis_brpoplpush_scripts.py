"""The Lua of `redis_brpoplpush`: on the server's clock, on the keys of one queue only.

Keys, entries and places are those of `redis_ack_scripts`, whose other scripts serve here too, but

 4  {q}:claims    zset  keys of owner lists by deadline
21  {q}:below:claims zset the same of those that hold entries of priorities below 0
    {q}:o:<token> list  what one fetch leased: marks, then the items as they were moved

The marks are one character per item: "b" a bare body, "e" an entry, "-" settled (the item is empty
then). A place is the item's index in the owner list, from 1; a lease is settled by place, so two
equal items are never mistaken for each other.
"""

from __future__ import annotations

from .redis_ack_scripts import LISTS
from .redis_ack_scripts import keys_of as keys_of_lists
from .redis_connection import ALWAYS, Script
from .redis_entries import BURIAL

__all__ = ["ACK", "CLAIM", "PURGE", "RETURN", "SCRIPTS", "SIZE", "keys_of"]


def keys_of(queue: str) -> tuple[str, ...]:
    """Return the keys of a queue, in the order that every script expects."""
    keys = keys_of_lists(queue)
    claims, below = f"{{{queue}}}:claims", f"{{{queue}}}:below:claims"
    return (*keys[:3], claims, *keys[4:20], below)


_COMMON = (
    LISTS
    + """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local function parts(owner, place, mark, item)
  local derived = string.match(owner, '[^:]*$') .. '-' .. place
  local id, lost, priority, state, body
  if mark ~= 'b' then id, lost, priority, state, body = head(item) end
  if not id then return derived, 0, 0, '', item end
  return id == '' and derived or id, lost, priority, state, body
end
local function sides(last) return redis.call('EXISTS', KEYS[2], unpack(KEYS, 8, last)) > 0 end
local function settle(owner, marks, places)
  local left = table.concat(marks)
  if not string.find(left, '[be]') then
    redis.call('UNLINK', owner); end_lease(owner)
    return
  end
  redis.call('LSET', owner, 0, left)
  for _, place in ipairs(places) do redis.call('LSET', owner, place, '') end
end
local function marks_of(owner)
  local marks = {}
  for mark in string.gmatch(redis.call('LINDEX', owner, 0) or '', '.') do
    marks[#marks + 1] = mark
  end
  return marks
end
local function bring_back(owner, counted)
  local marks, items = marks_of(owner), redis.call('LRANGE', owner, 1, -1)
  for place = #items, 1, -1 do
    if marks[place] ~= '-' then
      local id, n, priority, state, body = parts(owner, place, marks[place], items[place])
      redis.call('RPUSH', line_of(priority), entry(id, n + counted, priority, state, body))
    end
  end
  redis.call('UNLINK', owner); end_lease(owner)
end
"""
)

# ARGV as for CLAIM of `redis_ack_scripts`, but 6: when the caller sent this by our clock ('':
# unknown); 8+: lists that were leased but never received. What is due, what was not received and
# what is orphaned joins the line first (no orphans if the call comes late, for then owners' calls
# do, too). Reply: how many of the items are entries, a waiter to poke, items, the time. O(items).
CLAIM = Script(
    ALWAYS
    + _COMMON
    + """
local owner, limit, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if ARGV[7] ~= '' then redis.call('SREM', KEYS[5], ARGV[7]) end
for i = #ARGV, 8, -1 do bring_back(ARGV[i], 0) end
local late = ARGV[6] == '' or now - ARGV[6] > math.max(ARGV[4] / 3, 0.25)
local function bring_in(delayed, claims)
  join(delayed, now, limit)
  if ARGV[5] ~= '-' and not late then
    return_ended(claims, 'o:', ARGV[5] == '' and '-inf' or now - ARGV[5], now, bring_back)
  end
end
local claims = KEYS[4]
bring_in(KEYS[3], claims)
local items, bytes = {}, 0
local function take(list)
  while #items < limit and bytes < room do
    local item = redis.call('LMOVE', list, owner, 'RIGHT', 'RIGHT')
    if not item then return end
    items[#items + 1] = item; bytes = bytes + #item
  end
end
local some = sides(21)
if some then
  for priority = 9, 0, -1 do take(line_of(priority)) end
end
local entries = #items
take(KEYS[1])
if some and #items < limit then
  claims = #items == 0 and KEYS[21] or claims
  bring_in(KEYS[20], KEYS[21])
  if #items == 0 then
    for i = 17, 19 do take(KEYS[i]) end
    entries = #items
  end
end
if #items > 0 then
  redis.call('LPUSH', owner, string.rep('e', entries) .. string.rep('b', #items - entries))
  redis.call('ZADD', claims, now + ARGV[4], owner)
end
local poke = some and sides(19) and redis.call('SRANDMEMBER', KEYS[5])
return {entries, poke, items, string.format('%.6f', now)}
"""
)

# ARGV per owner list: key, n, n places. Ends leases for good. Reply: the ordinals of the places
# that were not ours. O(items of the lists).
ACK = Script(
    ALWAYS
    + _COMMON
    + """
local lost, i, ordinal = {}, 1, 0
while i <= #ARGV do
  local owner, last = ARGV[i], i + 1 + ARGV[i + 1]
  local marks, places = marks_of(owner), {}
  for k = i + 2, last do
    local place = tonumber(ARGV[k])
    if (marks[place] or '-') == '-' then lost[#lost + 1] = ordinal
    else marks[place] = '-'; places[#places + 1] = place end
    ordinal = ordinal + 1
  end
  if #places > 0 then settle(owner, marks, places) end
  i = last + 1
end
return lost
"""
)

# ARGV per message: owner list, place, "back" or "dead", delay, state or JSON of reason and trace.
# Ends leases otherwise. Reply: a waiter to poke, the ordinals of those that were not ours.
# O(log n + items of the list) each.
RETURN = Script(
    ALWAYS
    + _COMMON
    + BURIAL
    + """
local lost, poke = {}, false
for i = 1, #ARGV, 5 do
  local owner, place, delay = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 3])
  local marks = marks_of(owner)
  if (marks[place] or '-') == '-' then lost[#lost + 1] = (i - 1) / 5
  else
    local item = redis.call('LINDEX', owner, place)
    local id, n, priority, state, body = parts(owner, place, marks[place], item)
    marks[place] = '-'
    settle(owner, marks, {place})
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

_LEASED = """
local function leased(owner)
  local marks = ours(owner, 'o:') and redis.pcall('LINDEX', owner, 0)
  local _, held = string.gsub(type(marks) == 'string' and marks or '', '[be]', '')
  return held
end
"""

# Reply: waiting, delayed, leased, dead. What is due waits. O(owner lists + log n).
SIZE = Script(
    _COMMON
    + _LEASED
    + """
local waiting, held = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2]), 0
for i = 8, 19 do waiting = waiting + redis.call('LLEN', KEYS[i]) end
for _, key in ipairs({KEYS[4], KEYS[21]}) do
  for _, owner in ipairs(redis.call('ZRANGE', key, 0, -1)) do held = held + leased(owner) end
end
local delayed = 0
for _, key in ipairs({KEYS[3], KEYS[20]}) do
  local due = redis.call('ZCOUNT', key, '-inf', now)
  waiting, delayed = waiting + due, delayed + redis.call('ZCARD', key) - due
end
return {waiting, delayed, held, redis.call('HLEN', KEYS[7])}
"""
)

# ARGV the parts: waiting, delayed, leased, dead. Reply: how many messages went.
# O(owner lists + due).
PURGE = Script(
    _COMMON
    + _LEASED
    + """
local parts, count = {}, 0
for _, part in ipairs(ARGV) do parts[part] = true end
if parts.waiting then
  count = redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
    + redis.call('ZREMRANGEBYSCORE', KEYS[20], '-inf', now)
  for _, i in ipairs({1, 2, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}) do
    count = count + redis.call('LLEN', KEYS[i]); redis.call('UNLINK', KEYS[i])
  end
end
if parts.delayed then
  count = count + redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[20])
  redis.call('UNLINK', KEYS[3], KEYS[20])
end
if parts.leased then
  for _, key in ipairs({KEYS[4], KEYS[21]}) do
    for _, owner in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      local held = leased(owner)
      if held > 0 then count = count + held; redis.call('UNLINK', owner) end
    end
    redis.call('UNLINK', key)
  end
end
if parts.dead then
  count = count + redis.call('HLEN', KEYS[7]); redis.call('UNLINK', KEYS[6], KEYS[7])
end
return count
"""
)

SCRIPTS = (CLAIM, ACK, RETURN, SIZE, PURGE)
