"""What a loop logs of errors in a row, and how long it pauses after each."""

from __future__ import annotations

import logging

from ..errors import Unavailable

__all__ = ["Outage"]
log = logging.getLogger("fsdf.consumer")
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Outage:
    """Belongs to one thread; `failures` counts the errors in a row."""

    def __init__(self, queue: str) -> None:
        self._queue, self.failures = queue, 0

    def failed(self, error: Exception) -> float:
        """Log once per outage; return for how long to wait, a little longer each time."""
        if not isinstance(error, Unavailable):
            log.error("queue %s: the consumer failed and goes on", self._queue, exc_info=error)
        elif not self.failures:
            log.warning("queue %s: cannot fetch, will try again: %s", self._queue, error)
        pause = BACKOFF[min(self.failures, len(BACKOFF) - 1)]
        self.failures += 1
        return pause

    def over(self) -> None:
        """The broker has answered."""
        if self.failures:
            log.warning("queue %s: the broker answers again", self._queue)
            self.failures = 0
