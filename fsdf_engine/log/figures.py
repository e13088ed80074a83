"""The figures of an interval, and how they are put for people. Pure, but for the sample of runs."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Counts", "Durations", "Figures", "Pace", "told"]
KEPT = 1024  # durations that a sample keeps


class Counts(NamedTuple):
    """What has happened since the beginning."""

    started: int = 0
    failed: int = 0  # attempts
    settled: int = 0


class Durations:
    """An even sample of the durations of an interval (Vitter's algorithm R).

    `last` is the instant (`time.monotonic`) at which one was taken last.
    """

    def __init__(self) -> None:
        self._kept: list[float] = []
        self._seen, self.last = 0, 0.0

    def add(self, seconds: float) -> None:
        """Take one more. Any thread."""
        self._seen += 1
        self.last = time.monotonic()
        if len(self._kept) < KEPT:
            self._kept.append(seconds)
        elif (place := int(random.random() * self._seen)) < KEPT:
            self._kept[place] = seconds

    def take(self) -> tuple[float, float] | None:
        """Return the median and the 95th percentile, and begin anew."""
        kept, self._kept, self._seen = sorted(self._kept), [], 0
        if not kept:
            return None
        return kept[(len(kept) - 1) // 2], kept[(len(kept) - 1) * 95 // 100]


class Pace:
    """How fast a queue gets shorter, all its workers and publishers taken together."""

    def __init__(self) -> None:
        self._waiting: int | None = None
        self._rate: float | None = None

    def left(self, waiting: int, seconds: float, starts: float) -> float | None:
        """Return the seconds until nothing waits, `seconds` after the last call; None: never.

        The first time it is reckoned by this worker's own starts a second.
        """
        before, self._waiting = self._waiting, waiting
        if before is None:
            rate = starts
        else:
            now = (before - waiting) / seconds
            self._rate = now if self._rate is None else (self._rate + now) / 2
            rate = self._rate
        return waiting / rate if waiting and rate > 0 else None


@dataclass(frozen=True, slots=True)
class Figures:
    """One interval of one queue; what is unknown is None. Durations in seconds."""

    starts_per_second: float
    errors: int
    p50: float | None = None
    p95: float | None = None
    waiting: int | None = None
    delayed: int | None = None
    seconds_left: float | None = None


def told(figures: Figures) -> str:
    """Return the figures as a line for people."""
    parts = [f"{figures.starts_per_second:,.1f} starts/s"]
    if figures.p50 is not None and figures.p95 is not None:
        parts.append(f"p50 {_duration(figures.p50)}, p95 {_duration(figures.p95)}")
    parts.append(f"{figures.errors:,} error{'s'[: figures.errors != 1]}")
    if figures.waiting is not None:
        parts.append(f"{figures.waiting:,} waiting")
        if figures.delayed:
            parts.append(f"{figures.delayed:,} delayed")
        if figures.seconds_left is not None:
            parts.append(f"{_clock(figures.seconds_left)} left at this rate")
        elif figures.waiting:
            parts.append("not getting fewer")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 1.0:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else _clock(seconds)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
