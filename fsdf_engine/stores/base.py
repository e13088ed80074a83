"""What result stores share."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["Deliver", "guarded"]

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
