"""Too many runs that outlive their deadline: told once."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["Overload"]
log = logging.getLogger("fsdf.consumer")


class Overload:
    """Belongs to a consumer's thread; `then` is called with the first word of it."""

    def __init__(self, queue: str, then: Callable[[], None]) -> None:
        self._queue, self._then, self._told = queue, then, False

    def tell(self, runs: int) -> None:
        """Say that so many runs cannot be ended."""
        if not self._told:
            self._told = True
            log.error(
                "queue %s: %d runs outlive their deadline and cannot be ended; nothing more is"
                " fetched until they end; use PROCESSES for such tasks", self._queue, runs,
            )  # fmt: skip
            self._then()
