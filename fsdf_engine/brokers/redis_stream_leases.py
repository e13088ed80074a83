"""The Lua of `redis_stream` that ends and renews leases; its keys are those of
`redis_stream_scripts`."""

from __future__ import annotations

from .redis_connection import ALWAYS
from .redis_entries import BURIAL
from .redis_stream_scripts import CLAIM, script

__all__ = ["ACK", "CLOSE", "EXTEND", "RETURN", "SCRIPTS"]

# ARGV consumer, then groups: priority, times, count, ids. Ends leases for good. Reply: ordinals of
# those that were not ours. An entry without a place in `states` has had one owner only, so that the
# pending list needs no look. O(leases).
ACK = script(
    ALWAYS
    + """
local me, lost, ordinal, n, used = ARGV[1], {}, 0, 2, {}
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
  local s, times, count = stream_of(tonumber(ARGV[n])), tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2])
  used[side_of(s)] = true
  local ids, ordinals, marks = {unpack(ARGV, n + 3, n + 2 + count)}, {}, {}
  for k = 1, count do ordinals[k] = ordinal + k - 1 end
  ordinal, n = ordinal + count, n + 3 + count
  if moved then
    for k, id in ipairs(ids) do marks[k] = mark(s, id) end
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
for side in pairs(used) do leave(me, side) end
return lost
"""
)

# ARGV consumer, then groups: priority, times, lowest and highest id, count, ids. Restarts leases.
# Reply: ordinals of those that were not ours. O(what the consumer holds).
EXTEND = script(
    ALWAYS
    + """
local function held(key, low, high, consumer)
  local times = {}
  while low do
    local page = pending(key, low, high, 1000, consumer)
    for _, e in ipairs(page) do times[e[1]] = e[4] end
    low = #page == 1000 and '(' .. page[1000][1]
  end
  return times
end
local me, lost, ordinal, n, used = ARGV[1], {}, 0, 2, {}
while n <= #ARGV do
  local s, times, count = stream_of(tonumber(ARGV[n])), tonumber(ARGV[n + 1]), tonumber(ARGV[n + 4])
  local ours, ids = held(KEYS[s], ARGV[n + 2], ARGV[n + 3], me), {}
  for k = n + 5, n + 4 + count do
    local id = ARGV[k]
    if ours[id] == times then ids[#ids + 1] = id; ours[id] = nil
    else lost[#lost + 1] = ordinal end
    ordinal = ordinal + 1
  end
  send({'XCLAIM', KEYS[s], GROUP, me, 0}, ids, 'JUSTID')
  used[side_of(s)] = true
  n = n + 5 + count
end
for side in pairs(used) do review(me, side, false) end
return lost
"""
)

# ARGV consumer, then per message: priority, times, id, "back" or "dead", delay, state or JSON of
# reason and trace. Ends leases otherwise. Reply: ordinals of those not ours. O(log n) each.
RETURN = script(
    ALWAYS
    + BURIAL
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
    bury(DEAD, LETTERS, now, origin, text, lost, priority_of(s), body)
  elseif delay > 0 then
    remove(s, {id})
    local later = KEYS[side_of(s) - 1]
    redis.call('ZADD', later, now + delay, entry(origin, lost, priority_of(s), text, body))
  else
    redis.call('HSET', STATES, mark(s, id), (releases + 1) .. ' ' .. text)
    redis.call('XCLAIM', KEYS[s], GROUP, PARKED, 0, id, 'JUSTID')
  end
  return true
end
local lost, used = {}, {}
for n = 2, #ARGV, 6 do
  local s = stream_of(tonumber(ARGV[n]))
  used[side_of(s)] = true
  if not back(s, ARGV[n + 2], tonumber(ARGV[n + 1]), ARGV[n + 3], tonumber(ARGV[n + 4]),
      ARGV[n + 5]) then lost[#lost + 1] = (n - 2) / 6 end
end
ring()
for side in pairs(used) do leave(ARGV[1], side) end
return lost
"""
)

# ARGV consumer. Removes the consumer if it holds nothing. O(1).
CLOSE = script("leave(ARGV[1], UPPER) leave(ARGV[1], LOWER) return 0")

SCRIPTS = (CLAIM, ACK, EXTEND, RETURN, CLOSE)  # of all that consumers do
