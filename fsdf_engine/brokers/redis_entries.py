"""The form of what Redis brokers store beside bare bodies, in Python and in Lua.

entry = "<id>:<leases lost>:<priority>:<state JSON>\\n<body>". An empty id is derived when the entry
is first leased, as for a bare body. "~" before the id: never leased. A dead letter is
"<JSON of reason and trace>\\n<entry>", of which the id is empty: the name of the letter tells it.

A priority below 0 stands in entries of keys that have `below` or the priority in their names only:
former versions, which expect a digit there, know none of these. For the same reason the entry of a
dead letter, in a key that they know, has 0 and the priority in place of a state.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from ..contracts import DeadMessage, Letter, Outgoing, line_of
from ..outcomes import DeadLetter, Release, State, Verdict, state_of

__all__ = [
    "BURIAL", "BURIAL_ONCE", "ENTRY", "LETTER", "arguments", "bare", "buried", "due_later", "fresh",
    "letter", "opened",
]  # fmt: skip

_HEAD = re.compile(rb"([\w/-]*):(\d{1,9}):(\d|-[369]):([^\n]*)\n")


def arguments(verdict: Verdict) -> tuple[Any, ...]:
    """Return how RETURN is told about a verdict that keeps the message; nothing of an Ack."""
    match verdict:
        case Release(delay, state):
            return "back", delay, json.dumps(state, separators=(",", ":")) if state else ""
        case DeadLetter(reason, trace):
            return "dead", 0, json.dumps([reason, trace])
    return ()


def bare(body: bytes) -> tuple[str, int, int, State | None, bytes]:
    """Return the same of a body that is stored by itself."""
    return "", 0, 0, None, body


def opened(entry: bytes) -> tuple[str, int, int, State | None, bytes]:
    """Return the id, the leases lost, the priority, the state and the body of an entry.

    What is no entry, because another program has written it, is a body.
    """
    if (found := _HEAD.match(entry)) is None:
        return bare(entry)
    id, lost, priority, state = found.groups()
    known = state_of(state) if state else None
    return id.decode(), int(lost), int(priority), known, entry[found.end() :]


def fresh(items: Sequence[Outgoing]) -> list[Any]:
    """Return how DELAY is told about new messages: when they are due, and as what entries."""
    token, told = os.urandom(8).hex().encode(), list[Any]()
    for n, item in enumerate(items):
        due = f"+{item.delay!r}" if item.delay > 0 else repr(item.not_before)
        told += (due, b"~%b-%d:0:%d:\n" % (token, n, line_of(item.priority)) + item.body)
    return told


def due_later(queue: str, ranges: Sequence[Any]) -> list[Outgoing]:
    """Return what keys of delayed messages hold, the next one first; ranges are with scores."""
    found: list[Outgoing] = []
    for entries in ranges:
        for entry, due in zip(entries[::2], entries[1::2]):
            id, _, priority, _, body = opened(entry.removeprefix(b"~"))
            found.append(Outgoing(queue, id, body, not_before=float(due), priority=priority))
    return sorted(found, key=lambda item: item.not_before)


def buried(letters: Sequence[Letter]) -> list[Any]:
    """Return how BURY is told about dead letters."""
    told: list[Any] = []
    for item in letters:
        name = item.id.encode(errors="backslashreplace")
        told += (name, json.dumps([item.reason, item.trace]), line_of(item.priority), item.body)
    return told


def letter(id: bytes, died_at: bytes, value: bytes | None) -> DeadMessage:
    """Return a dead letter as it is stored, whoever has stored it."""
    told, _, entry = (value or b"").partition(b"\n")
    try:
        reason, trace = json.loads(told)
    except (TypeError, ValueError):
        reason, trace, entry = "another program has put it here", "", value or b""
    name = id.decode(errors="backslashreplace")
    return DeadMessage(name, opened(entry)[4], str(reason), str(trace), float(died_at))


# What is not of this form is a body that another program has put where entries are. Priorities
# below 0 have the keys 17 to 19 of every Redis broker.
ENTRY = """
local function head(value)
  local id, lost, priority, state, start =
    string.match(value, '^([%w/_-]*):(%d+):(-?%d):([^\\n]*)\\n()')
  if id and #lost < 10 and (#priority == 1 or string.find('-3-6-9', priority, 1, true)) then
    return id, tonumber(lost), tonumber(priority), state, string.sub(value, start)
  end
end
local function entry(id, lost, priority, state, body)
  return id .. ':' .. lost .. ':' .. priority .. ':' .. state .. '\\n' .. body
end
"""

# `bury` keeps a dead letter of what was leased.
BURIAL = """
local function bury(dead, letters, now, id, told, n, priority, body)
  while redis.call('HEXISTS', letters, id) == 1 do id = id .. '_' end -- ids of others may be equal
  redis.call('ZADD', dead, now, id)
  local below = priority < 0
  local kept = entry('', n, below and 0 or priority, below and priority or '', body)
  redis.call('HSET', letters, id, told .. '\\n' .. kept)
end
"""

# `letter` gives the entry of a dead letter, `letter_priority` the priority that it had.
LETTER = """
local function letter(value)
  return string.sub(value, string.match(value, '^%[[^\\n]*%]\\n()') or 1)
end
local function letter_priority(value)
  local _, _, priority, state = head(letter(value))
  return tonumber(string.match(state or '', '^%-[369]$')) or priority or 0
end
"""

# `bury_once` keeps one of what nobody leases, unless a letter of its id and body is there.
BURIAL_ONCE = (
    BURIAL
    + LETTER
    + """
local function bury_once(dead, letters, now, id, told, priority, body)
  local name, kept = id, redis.call('HGET', letters, id)
  while kept do
    local found = letter(kept)
    if body == (select(5, head(found)) or found) then return end
    name = name .. '_'
    kept = redis.call('HGET', letters, name)
  end
  bury(dead, letters, now, name, told, 0, tonumber(priority), body)
end
"""
)
