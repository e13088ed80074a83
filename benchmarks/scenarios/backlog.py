"""Backlog: does a long queue slow the worker? The first 100,000 of 1,000,000 and of 100,000."""

from __future__ import annotations

from ..bench import Bench, Failure
from ..contestants import CONTESTANTS

__all__ = ["backlog"]

FIRST = 100_000


def backlog(bench: Bench, run: int) -> None:
    """Measure fsdf over REDIS_ACK_ABLE with threads."""
    (one,) = (c for c in CONTESTANTS if c.name == "fsdf REDIS_ACK_ABLE threading")
    if not bench.contestants((one,)):
        return
    part = 10 if bench.options.quick else 1
    first = FIRST // part
    for waiting in (first, 10 * first):
        bench.fresh()
        environment = bench.environment(one)
        name = f"{one.name}, {waiting:,} waiting"
        try:
            with bench.worker(one, environment) as worker:
                worker.hold()
                bench.meter.clear(waiting)
                bench.fill(one, environment, waiting)
                worker.release()
                bench.await_runs(worker, first, 120)
                runs = bench.meter.runs(first)
        except (Failure, RuntimeError) as error:
            bench.add("backlog", name, run, failed=str(error))
            continue
        window = runs[-1] - runs[0]
        bench.add("backlog", name, run, rate=(first - 1) / window, messages=first, window=window)
