"""Messages and dead letters as rows of an SQL database, and rows as deliveries."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..contracts import Delivery, LeaseId, Letter, Outgoing, Settlement, line_of
from ..outcomes import Ack, DeadLetter, Release
from .sqlite_rows import delivery

__all__ = [
    "Ending", "MessageRow", "clean", "deliveries", "letter_row", "listed", "message_row", "numbers",
    "sorted_out",
]  # fmt: skip
MOST = 1e15  # Unix seconds; what is due later is due then


class MessageRow(NamedTuple):
    """A message to be stored."""

    queue: str
    id: str
    body: bytes
    priority: int
    delay: float
    not_before: float
    headers: str | None
    published: float = 0.0  # 0: now


class Ending(NamedTuple):
    """What a settle does: (token, seq, ...) each."""

    acked: list[tuple[int, int]]
    released: list[tuple[int, int, float, str | None]]  # delay, state
    buried: list[tuple[int, int, str, str]]  # reason, trace

    def tokens(self) -> list[int]:
        """Return the leases' tokens, in the order in which they are locked."""
        return sorted({row[0] for part in self for row in part})


def clean(text: str) -> str:
    """Return text that every database takes: without lone surrogates and NUL."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def message_row(item: Outgoing) -> MessageRow:
    """Return the row of a message."""
    headers = json.dumps(dict(item.headers)) if item.headers else None
    delay, instant = min(max(item.delay, 0.0), MOST / 2), min(item.not_before, MOST)
    if delay or not instant > 0:
        instant = 0.0
    return MessageRow(
        item.queue, clean(item.id), item.body, line_of(item.priority), delay, instant, headers
    )


def letter_row(item: Letter) -> dict[str, Any]:
    """Return the row of a dead letter."""
    return {
        "queue": item.queue, "id": clean(item.id), "priority": line_of(item.priority),
        "headers": json.dumps(dict(item.headers)) if item.headers else None, "body": item.body,
        "reason": clean(item.reason), "trace": clean(item.trace),
    }  # fmt: skip


def deliveries(token: int, rows: Sequence[tuple[Any, ...]]) -> list[Delivery]:
    """Return what a claim gave, in the order of the line, which the server need not keep.

    Rows are (seq, priority, spot, id, body, deliveries, state, headers, published).
    """
    return [
        delivery(token, (row[0], *row[3:], row[1]))
        for row in sorted(rows, key=lambda row: (-row[1], row[2], row[0]))
    ]


def sorted_out(batch: Sequence[Settlement]) -> tuple[Ending, list[LeaseId]]:
    """Return what a batch of verdicts does, and the leases that it names again: those are lost."""
    ending, seen, again = Ending([], [], []), set[LeaseId](), list[LeaseId]()
    for lease, verdict in batch:
        if lease in seen:
            again.append(lease)
            continue
        seen.add(lease)
        token, seq = lease
        match verdict:
            case Ack():
                ending.acked.append((token, seq))
            case Release(delay, state):
                kept = json.dumps(dict(state)) if state else None
                ending.released.append((token, seq, min(max(delay, 0.0), MOST / 2), kept))
            case DeadLetter(reason, trace):
                ending.buried.append((token, seq, clean(reason), clean(trace)))
    return ending, again


def listed(values: Sequence[int]) -> str:
    """Return numbers for an `IN (...)`; it may be empty."""
    return ",".join(map(str, values)) or "NULL"


def numbers(text: str) -> list[int]:
    """Return what `seqs` of a lease names, whoever has written it."""
    return [int(found) for found in re.findall(r"(?<!\d)\d{1,18}(?!\d)", text)]
