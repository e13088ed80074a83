"""Ids of messages: random UUIDs as text, as kombu makes them, many with one system call.

Those of others are whatever text they have chosen.
"""

from __future__ import annotations

import os
from collections import deque

__all__ = ["new_id", "text_id"]

_MANY = 128
_ids: deque[str] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.clear)


def new_id() -> str:
    """Return a UUID of version 4."""
    try:
        return _ids.popleft()
    except IndexError:
        made = [_uuid(each) for each in _chunks(os.urandom(16 * _MANY).hex())]
        _ids.extend(made[1:])
        return made[0]


def text_id(id: object) -> str:
    """Return an id as text, which bytes are taken for, too: a client of Redis may give them.

    Raises:
        TypeError: it is of another type, and would be no key of a result.
    """
    if isinstance(id, str):
        return id
    if isinstance(id, bytes):
        return id.decode()
    raise TypeError(f"the task id {id!r} is no text but of type {type(id).__name__}; give str(id)")


def _chunks(digits: str) -> list[str]:
    return [digits[n : n + 32] for n in range(0, len(digits), 32)]


def _uuid(d: str) -> str:
    """Return 32 digits as a UUID; four bits say its version, two its variant."""
    variant = "89ab"[int(d[16], 16) & 3]
    return f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{variant}{d[17:20]}-{d[20:]}"
