"""Starting each job at the instant that a valve gives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..contracts import Job, Valve

__all__ = ["pace"]


def pace(
    jobs: Sequence[Job],
    valve: Valve,
    submit: Callable[[Sequence[Job]], object],
    wait: Callable[[float], bool],
) -> Sequence[Job]:
    """Submit each job at its instant; return those left when `wait(seconds)` has said to stop.

    Blocks, for as long as the valve leases ahead.
    """
    due: list[Job] = []
    for n, job in enumerate(jobs):
        now = time.monotonic()
        [at] = valve.starts(1, now)
        if at > now:
            if due:
                submit(due)
                due = []
            if wait(at - now):
                return jobs[n:]
        due.append(job)
    if due:
        submit(due)
    return ()
