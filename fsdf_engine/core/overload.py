"""Too many runs that outlive their deadline: told once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

__all__ = ["Overload"]
log = logging.getLogger("fsdf.consumer")
LASTS = 2.0  # seconds that runs may take to unwind, before they count as what cannot be ended


class Overload:
    """Belongs to a consumer's thread; `then` is called with the first word of it."""

    def __init__(self, queue: str, then: Callable[[], None]) -> None:
        self._queue, self._then, self._told = queue, then, False
        self._since = math.inf

    def lasts(self, runs: int, most: int) -> bool:
        """Say whether there have been more than `most` for a while, now that there are `runs`."""
        if runs <= most:
            self._since = math.inf
            return False
        now = time.monotonic()
        self._since = min(self._since, now)
        if now - self._since < LASTS:
            return False
        self._tell(runs)
        return True

    def _tell(self, runs: int) -> None:
        if not self._told:
            self._told = True
            log.error(
                "queue %s: %d runs outlive their deadline and cannot be ended; nothing more is"
                " fetched until they end; use PROCESSES for such tasks", self._queue, runs,
            )  # fmt: skip
            self._then()
