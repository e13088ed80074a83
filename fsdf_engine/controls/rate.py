"""Valve: an exact number of starts per second."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Rate"]


class Rate:
    """At most `qps` starts a second, evenly spaced, on an absolute schedule.

    A start may come `LATE` seconds after its instant and the next ones still keep theirs; starts
    lost to a longer delay are made up by `CATCH_UP`. So the schedule has at most 1 + 1.0061 times
    the rate in any sliding second, (1 + LATE) * CATCH_UP; the rest of the one percent that is
    allowed is for the way from here to the function. Time in which no message was there is not
    saved up. Leases at most `AHEAD` seconds of starts before they are due.
    """

    AHEAD = 0.01
    LATE = 0.004
    CATCH_UP = 1.002
    DEBT = 30.0  # seconds of lost starts that are still made up

    def __init__(self, qps: float) -> None:
        self._step = 1.0 / qps
        self._least = self._step / self.CATCH_UP  # between two starts
        self._due = 0.0  # when the schedule has the next start; 0: it has not begun
        self._last = 0.0  # when the last one really was
        self._asked = 0.0  # when permits were granted and not yet used

    def permits(self, wanted: int, now: float) -> tuple[int, float]:
        """See Valve. A grant that no `starts` follows tells that the queue was empty."""
        if self._asked:
            self._due = max(self._due, now)
        first = self._first(now)
        room = now + self.AHEAD - first
        if room < 0:
            self._asked = 0.0
            return 0, -room
        self._asked = now
        return min(wanted, int(room / self._step) + 1), 0.0

    def starts(self, count: int, now: float) -> Sequence[float]:
        """See Valve."""
        self._asked = 0.0
        instants: list[float] = []
        self._due = max(self._due or now, now - self.DEBT)
        for _ in range(count):
            at = self._first(now)
            instants.append(at)
            self._last = at
            self._due += self._step
        return instants

    def _first(self, now: float) -> float:
        return max(self._due or now, self._last + self._least, now - self.LATE)
