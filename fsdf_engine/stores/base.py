"""What result stores share."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..contracts import Layout, Record

__all__ = ["LAPSED", "Deliver", "guarded", "has_ended", "is_another", "replaces"]

Deliver = Callable[[str, bytes], None]
LAPSED = 100  # marks that are handed out at a time
_log = logging.getLogger("fsdf.stores")


def guarded(deliver: Deliver) -> Deliver:
    """Return `deliver` such that one failing call harms neither its thread nor other results."""

    def call(id: str, body: bytes) -> None:
        try:
            deliver(id, body)
        except Exception:
            # The waiter's fault; the others still want theirs.
            _log.exception("a result could not be delivered", extra={"task_id": id})

    return call


def has_ended(layout: Layout, body: bytes) -> bool:
    """Say whether bytes under a layout's key, which anybody may have written, are an end."""
    try:
        return layout.ended(body)
    except Exception:
        # The layer's fault, or bytes that are no result; who waits for others still wants theirs.
        _log.exception("what is stored is no result", extra={"layout": layout.name})
        return False


def is_another(kept: Record, record: Record) -> bool:
    """Say whether what is kept is the end of another message, which claims or was given the id."""
    return kept.final and bool(kept.origin) and kept.origin != record.origin


def replaces(kept: Record, record: Record) -> bool:
    """Say whether a record takes the place of the one that is kept. Pure; stores' scripts agree."""
    if kept.origin and kept.origin != record.origin:
        return not kept.final
    if kept.final and not record.final:
        return False
    attempt = -1 if record.final > kept.final else kept.attempt  # an end replaces progress
    before = kept.sends, kept.deliveries, attempt
    return before <= (record.sends, record.deliveries, record.attempt)
