"""What result stores share."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..contracts import Record

__all__ = ["Deliver", "guarded", "is_another", "replaces"]

Deliver = Callable[[str, bytes], None]
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


def is_another(kept: Record, record: Record) -> bool:
    """Say whether what is kept is the end of another message, which claims or was given the id."""
    return kept.final and bool(kept.origin) and kept.origin != record.origin


def replaces(kept: Record, record: Record) -> bool:
    """Say whether a record takes the place of the one that is kept. Pure; stores' scripts agree."""
    if kept.origin and kept.origin != record.origin:
        return not kept.final
    older = (kept.sends, kept.deliveries) <= (record.sends, record.deliveries)
    return older and kept.final <= record.final
