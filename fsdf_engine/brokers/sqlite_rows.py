"""Rows as we write them, and those of the table `message` as any program may have written them.

A body is taken as the bytes that it is. Whatever else is not as we would have written it counts as
if it were not there, so that no row keeps another from being read.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

from ..contracts import Again, Delivery, Letter, Outgoing, line_of
from ..outcomes import state_of

__all__ = ["MEND", "ODD", "READABLE", "delivery", "letter", "message", "replayed", "waiting"]

# Text of another program need not be UTF-8.
READABLE = operator.methodcaller("decode", "utf-8", "backslashreplace")
# `due` of rows that no instant tells when to run; text and blobs are greater than every number.
ODD = "due < 0 OR due >= '' OR (due IS NULL AND lease IS NULL)"
MEND = f"UPDATE message SET due = 0 WHERE queue = :queue AND ({ODD})"  # O(found log n)


def message(item: Outgoing, now: float) -> tuple[Any, ...]:
    """Return the row of a message."""
    due = 0.0
    if item.delay > 0:
        due = now + item.delay
    elif item.not_before > now:
        due = item.not_before
    return item.queue, item.id, item.body, line_of(item.priority), due, _text(item.headers), now


def letter(item: Letter, now: float) -> dict[str, Any]:
    """Return the row of a dead letter."""
    return {
        "queue": item.queue, "id": item.id.encode(errors="backslashreplace").decode(),
        "priority": line_of(item.priority), "headers": _text(item.headers), "body": item.body,
        "reason": item.reason, "trace": item.trace, "at": now,
    }  # fmt: skip


def _text(headers: Mapping[str, str] | None) -> str | None:
    return json.dumps(dict(headers)) if headers else None


def delivery(token: int, row: tuple[Any, ...]) -> Delivery:
    """Return a row as a delivery; the row is one of `sqlite_statements.WAITING`."""
    seq, id, body, deliveries, state, headers, published, priority = row
    if type(id) is not str:
        id = bytes(id).hex()
    if type(deliveries) is not int:
        deliveries = 0
    if type(published) is not float:
        published = 0.0
    if type(priority) is not int:
        priority = 0
    state = state_of(state) if state else None
    headers = _headers(headers) if headers else None
    return Delivery((token, seq), body, id, deliveries, state, headers, published, priority)


def waiting(queue: str, row: tuple[Any, ...]) -> Outgoing:
    """Return a row of `sqlite_statements.DELAYED` as what would be sent now."""
    id, body, headers, priority, due = row
    known = _headers(headers) if headers else None
    return Outgoing(queue, id, body, known, not_before=due, priority=priority)


def replayed(again: Again, body: bytes, headers: object) -> bytes:
    """Return the body of a dead letter as it is sent once more."""
    return again(body, _headers(headers) if headers else None)


def _headers(text: object) -> Mapping[str, str] | None:
    """Return a message's headers; None if another program has written something else there."""
    try:
        found = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if type(found) is dict and all(type(v) is str for v in found.values()) else None
