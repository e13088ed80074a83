"""The form of messages in RabbitMQ. Pure.

A body is as it was given; properties and headers of others stay as they are. Ours begin with
`fsdf-`:

- `fsdf-state`: what the last release carried, as JSON;
- `fsdf-lost`: how many leases of it were lost, as far as copies of it have been made;
- `fsdf-due`: when it is due, in milliseconds of Unix time: the ladder ends a little before;
- `fsdf-more`: how many seconds it has still to be delayed after its walk, which has a limit;
- `fsdf-line`: its priority, where that is below 0 and the queue has no lines of ours;
- `fsdf-reason`, `fsdf-trace`, `fsdf-died`: of a dead letter, the last in Unix seconds.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ..contracts import DeadMessage, LeaseId, Letter, Outgoing, line_of
from ..contracts import Delivery as Delivery
from ..errors import LARGEST
from ..message import new_id
from ..outcomes import DeadLetter, State, state_of
from .amqp_client import Publishing, Received
from .rabbitmq_names import LONGEST, MOST_TENTHS, TENTH, dead, way
from .rabbitmq_server import Shape

__all__ = ["changed", "delayed", "delivery", "due_of", "letter_of", "lost_of", "number", "outgoing"]

PREFIX = "fsdf-"
STATE, LOST, DUE, MORE = "fsdf-state", "fsdf-lost", "fsdf-due", "fsdf-more"
REASON, TRACE, DIED = "fsdf-reason", "fsdf-trace", "fsdf-died"
LINE = "fsdf-line"
# Of so long a delay, in seconds, the walk has whole multiples of so many tenths, and ends at least
# so many seconds early: moves cost the server, and take their time, most where many are due at
# once. What is left is waited for in the buffer.
COARSE = ((12.8, 8, 0.8), (3.2, 4, 0.05), (0.0, 1, 0.05))
# What the server writes on what it moves; with its marks of an earlier walk it would drop the next.
SERVERS = frozenset({
    "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason", "x-delivery-count",
    "x-acquired-count",
})  # fmt: skip
PERSISTENT = 2
MOST = 40_000  # bytes of a traceback: all headers have to fit into one frame
LINES: dict[int, int] = {line: place for place, line in enumerate((-9, -6, -3, *range(10)))}
PLACES: dict[int, int] = {place: line for line, place in LINES.items()}


def name_of(id: str) -> str:
    """Return an id as a property can have it: at most 255 bytes of UTF-8."""
    data = id.encode(errors="backslashreplace")
    return data.decode() if len(data) <= 255 else hashlib.sha256(data).hexdigest()


def _set_priority(properties: dict[str, Any], priority: int, shape: Shape) -> None:
    """Say how urgent something is, as the server knows it, or at least the next one who has it."""
    if not (line := line_of(priority)) and not shape.own_lines:
        return
    if line < 0 and not shape.own_lines:
        properties["headers"][LINE] = line
    else:
        properties["priority"] = LINES[line] if shape.own_lines else line


def outgoing(item: Outgoing, shape: Shape, now: float) -> Publishing:
    """Return how a new message is published."""
    headers: dict[str, Any] = dict(item.headers or ())
    properties = {
        "message_id": name_of(item.id) or new_id(),
        "delivery_mode": PERSISTENT,
        "timestamp": int(now),
        "headers": headers,
    }
    _set_priority(properties, item.priority, shape)
    delay = item.delay or (item.not_before and item.not_before - now)
    told = delayed(item.queue, item.body, properties, delay, now)
    if not headers:  # an empty table would be written by us, and read by each worker
        del properties["headers"]
    return told


def delayed(
    queue: str, body: bytes, properties: dict[str, Any], delay: float, now: float
) -> Publishing:
    """Return how something is published into a queue after a delay; none, if it is not above 0."""
    if delay <= 0:
        return Publishing(queue, body, properties)
    headers = properties["headers"]
    if delay > LONGEST:
        headers[MORE] = f"{delay - LONGEST:.3f}"
        tenths = MOST_TENTHS
    else:
        headers[DUE] = round((now + delay) * 1000)
        _, coarse, early = next(step for step in COARSE if delay >= step[0])
        tenths = int((delay - early) / TENTH)
        tenths -= tenths % coarse
    exchange, key = way(queue, max(0, tenths))
    return Publishing(key, body, properties, exchange)


def changed(properties: dict[str, Any], id: str, state: State | None, lost: int) -> dict[str, Any]:
    """Return the properties of a copy: those of the message, less what is of its past."""
    headers = {
        name: value
        for name, value in (properties.get("headers") or {}).items()
        if name not in SERVERS and (name == LINE or not name.startswith(PREFIX))
    }
    if state:
        headers[STATE] = orjson.dumps(state).decode()
    if lost:
        headers[LOST] = lost
    told = {**properties, "headers": headers, "message_id": id, "delivery_mode": PERSISTENT}
    told.pop("expiration", None)  # that of another program; its time has begun anew otherwise
    told.pop("user_id", None)  # the server takes that of its connection only
    told.pop("cluster_id", None)  # out of use since AMQP 0-9-1; not every client writes it
    return told


def number(headers: Mapping[str, Any], name: str) -> int:
    """Return a count or an instant that a header has; 0 where it has something else."""
    value = headers.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        return 0
    return int(value)  # a client may have a type of its own for long ones


def due_of(headers: Mapping[str, Any] | None) -> float:
    """Return when a message is due, 0.0 if it says nothing."""
    return number(headers, DUE) / 1000 if headers else 0.0


def more_of(headers: Mapping[str, Any] | None) -> float:
    """Return how much longer a message is delayed after its walk.

    What nobody can have asked for, it may be of another program, is no delay: else it would go
    round for ever.
    """
    try:
        more = float(headers[MORE]) if headers and MORE in headers else 0.0
    except (TypeError, ValueError):
        return 0.0
    return more if 0 < more <= LARGEST else 0.0


def lost_of(headers: Mapping[str, Any] | None, queue: str) -> int:
    """Return how many lost leases a message tells of: those in copies, and one of a long run."""
    if not headers:
        return 0
    lost = number(headers, LOST)
    return lost + str(headers.get("x-first-death-queue", "")).startswith(f"{queue}.held.")


def delivery(lease: LeaseId, message: Received, id: str, lost: int, shape: Shape) -> Delivery:
    """Return what the engine gets to see."""
    headers, state, known = message.headers, None, None
    if headers:
        if STATE in headers:
            state = state_of(headers[STATE])
        known = {
            name: value
            for name, value in headers.items()
            if type(value) is str and not name.startswith(PREFIX) and name not in SERVERS
        }
    return Delivery(
        lease, message.body, id, lost, state, known or None, float(message.timestamp or 0),
        _line(message.priority or 0, headers, shape),
    )  # fmt: skip


def _line(priority: int, headers: Mapping[str, Any] | None, shape: Shape) -> int:
    if shape.own_lines:
        return PLACES.get(priority, 9)
    below: Any = headers.get(LINE) if headers else None
    return int(below) if below in (-3, -6, -9) else min(priority, 9)


def died(
    queue: str, body: bytes, properties: dict[str, Any], verdict: DeadLetter | Letter
) -> Publishing:
    """Return how a dead letter is published; `properties` are of a copy."""
    trace = verdict.trace.encode(errors="backslashreplace")[:MOST].decode(errors="ignore")
    reason = verdict.reason.encode(errors="backslashreplace")[:MOST].decode(errors="ignore")
    headers = properties["headers"]
    headers |= {REASON: reason, TRACE: trace, DIED: f"{time.time():.3f}"}
    return Publishing(dead(queue), body, properties)


def buried(item: Letter, shape: Shape) -> Publishing:
    """Return how a dead letter of what nobody leases is published."""
    headers: dict[str, Any] = dict(item.headers or ())
    properties = {
        "message_id": name_of(item.id) or new_id(), "delivery_mode": PERSISTENT, "headers": headers,
    }  # fmt: skip
    _set_priority(properties, item.priority, shape)
    return died(item.queue, item.body, properties, item)


def letter_of(message: Received, id: str) -> DeadMessage:
    """Return a dead letter as it is kept, whoever has put it there."""
    headers = message.headers or {}
    try:
        at = float(headers.get(DIED, 0.0))
    except (TypeError, ValueError):
        at = 0.0
    reason = headers.get(REASON, "another program has put it here")
    return DeadMessage(id, message.body, str(reason), str(headers.get(TRACE, "")), at)
