"""A task's worth of processor time: a loop of fixed length, timed once by the bench."""

from __future__ import annotations

import time

__all__ = ["spin", "spin_length"]


def spin(length: int) -> int:
    """Add numbers; holds the GIL, as CPU-bound Python does."""
    total = 0
    for n in range(length):
        total += n
    return total


def spin_length(seconds: float) -> int:
    """Return the loop length that costs `seconds` of CPU here, the best of several timings."""
    length = 20_000
    best = float("inf")
    for _ in range(20):
        start = time.thread_time()
        spin(length)
        best = min(best, time.thread_time() - start)
    return max(1, round(length * seconds / best))
