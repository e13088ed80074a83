"""How many messages to hold beyond the running ones. Pure."""

from __future__ import annotations

from ..contracts import Broker, Capability

__all__ = ["Prefetch", "horizon_of"]


HORIZON = 0.1  # seconds of work that are leased ahead
AHEAD = 0.005  # seconds of work that are taken ahead for good
MOST = 500  # messages that are taken ahead for good


def horizon_of(broker: Broker) -> float:
    """Return how many seconds of work may be fetched ahead: without leases it is for good."""
    return HORIZON if Capability.LEASE in broker.capabilities else AHEAD


class Prefetch:
    """`horizon` seconds' worth of work, learnt from how fast runs end; at most `ceiling`."""

    def __init__(self, horizon: float = HORIZON, ceiling: int = 500) -> None:
        self.ceiling, self._horizon, self._rate = ceiling, horizon, 0.0
        self._ended, self._at, self._skipped = 0, 0.0, 0

    def depth(self, ended: int, now: float) -> int:
        """Return the depth, given the number of runs ended since the beginning."""
        self._learn(ended, now)
        return min(self.ceiling, int(self._rate * self._horizon))

    def ahead(self, ended: int, now: float, wanted: int) -> int:
        """Return how many of them may be acknowledged before a slot is free for them.

        `wanted` is how many the pool needs to keep its slots busy.
        """
        self._learn(ended, now)
        return min(self.ceiling, MOST, max(wanted, int(self._rate * AHEAD)))

    def _learn(self, ended: int, now: float) -> None:
        elapsed = now - self._at
        if elapsed > 0.01:
            runs = ended - self._ended
            self._skipped -= (skipped := min(self._skipped, runs))
            rate = (runs - skipped) / elapsed
            self._rate += min(1.0, elapsed / HORIZON) * (rate - self._rate)
            self._ended, self._at = ended, now

    def skip(self, count: int) -> None:
        """So many end, now or soon, without having run: they tell nothing of how fast runs are."""
        self._skipped += count

    def forget(self) -> None:
        """Start learning anew: the queue's work has changed."""
        self._rate = 0.0
