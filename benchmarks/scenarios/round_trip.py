"""Round trip: one publisher, publish and wait for the result, then the next; results are on."""

from __future__ import annotations

import statistics

from ..bench import Bench, Failure
from ..contestants import CONTESTANTS
from ..process import run_client

__all__ = ["percentile", "round_trip"]


def percentile(values: list[float], part: float) -> float:
    """The value below which `part` (0..1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def round_trip(bench: Bench, run: int) -> None:
    """Measure every contestant once."""
    for one in bench.contestants(CONTESTANTS):
        if not one.round_trip:
            continue
        bench.fresh()
        environment = bench.environment(one, results=True)
        try:
            with bench.worker(one, environment):
                window = bench.options.window
                answer = run_client(one.app, "round_trip", window, environment, bench.folder)
        except (Failure, RuntimeError) as error:
            bench.add("round_trip", one.name, run, failed=str(error))
            continue
        taken = [seconds * 1e3 for seconds in answer["taken"]]
        bench.add(
            "round_trip",
            one.name,
            run,
            p50=statistics.median(taken),
            p99=percentile(taken, 0.99),
            count=len(taken),
        )
