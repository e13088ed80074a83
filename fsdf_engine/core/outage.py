"""What a loop logs of errors in a row, and how long it pauses after each."""

from __future__ import annotations

import logging

from ..errors import Unavailable

__all__ = ["Outage"]
log = logging.getLogger("fsdf.consumer")
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Outage:
    """Belongs to one thread; `failures` counts the errors in a row until it is `over`."""

    def __init__(self, queue: str) -> None:
        self._queue, self.failures = queue, 0
        self._unanswered = 0  # of these since the last fetch
        self._is_told = False

    def failed(self, error: Exception) -> float:
        """Log once per outage; return for how long to wait, a little longer each time."""
        if not isinstance(error, Unavailable):
            log.error("queue %s: the consumer failed and goes on", self._queue, exc_info=error)
        elif not self._is_told:
            log.warning("queue %s: cannot fetch, will try again: %s", self._queue, error)
            self._is_told = True
        pause = BACKOFF[min(self.failures, len(BACKOFF) - 1)]
        self.failures += 1
        self._unanswered += 1
        return pause

    def fetched(self, some: bool) -> None:
        """The broker has answered a fetch. One that gives none may still refuse each wait alone."""
        if some or self._unanswered > 1:
            self.over()
        self._unanswered = 0

    def over(self) -> None:
        """The broker has answered all that it was asked."""
        if self._is_told:
            log.warning("queue %s: the broker answers again", self._queue)
        self.failures, self._is_told = 0, False
