"""How many messages to hold beyond the running ones. Pure."""

from __future__ import annotations

__all__ = ["Prefetch"]


class Prefetch:
    """`horizon` seconds' worth of work, learnt from how fast runs end; at most `ceiling`."""

    def __init__(self, horizon: float = 0.1, ceiling: int = 500) -> None:
        self.ceiling, self._horizon, self._rate = ceiling, horizon, 0.0
        self._ended, self._at = 0, 0.0

    def depth(self, ended: int, now: float) -> int:
        """Return the depth, given the number of runs ended since the beginning."""
        elapsed = now - self._at
        if elapsed > 0.01:
            rate = (ended - self._ended) / elapsed
            self._rate += min(1.0, elapsed / self._horizon) * (rate - self._rate)
            self._ended, self._at = ended, now
        return min(self.ceiling, int(self._rate * self._horizon))

    def skip(self, count: int) -> None:
        """So many have ended without having run: they tell nothing of how fast runs are."""
        self._ended += count

    def forget(self) -> None:
        """Start learning anew: the queue's work has changed."""
        self._rate = 0.0
