"""How exact qps is: starts at the function's first line, for rates from 0.5 to 5,000 per second.

`python -m benchmarks --scenario qps` runs it alone. Per rate: how long as many intervals as belong
into 30 s took (too few starts, a stall or a burst all show in it); and the most starts in any
window of one second, which slides over every start.
"""

from __future__ import annotations

from collections.abc import Sequence

from .bench import Bench, Failure
from .contestants import CONTESTANTS, Contestant

__all__ = ["qps", "worst_second"]

RATES = (0.5, 1.0, 7.0, 30.0, 100.0, 1000.0, 5000.0)
QUICK = (1.0, 30.0, 1000.0)


def worst_second(starts: Sequence[float]) -> int:
    """The most starts within any half-open window of one second."""
    worst = first = 0
    for last, start in enumerate(starts):
        while start - starts[first] >= 1.0:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def _starts(bench: Bench, one: Contestant, rate: float, intervals: int) -> list[float]:
    """Run `one` with a queue that doesn't run dry; return its first `intervals` + 1 starts."""
    bench.fresh()
    environment = {**bench.environment(one), "BENCH_QPS": str(rate)}
    count = intervals + 1 + int(2 * rate) + 10
    bench.fill(one, environment, count)
    with bench.worker(one, environment, warm=0) as worker:
        bench.await_runs(worker, intervals + 1, 30 + 1.5 * intervals / rate)
        return bench.meter.runs(count)[: intervals + 1]


def qps(bench: Bench, run: int) -> None:
    """Measure every rate, in the first run only: each window is long as it is."""
    (one,) = (c for c in CONTESTANTS if c.name == "fsdf REDIS_ACK_ABLE threading")
    if run > 1 or not bench.contestants((one,)):
        return
    window = 5.0 if bench.options.quick else 30.0
    for rate in QUICK if bench.options.quick else RATES:
        name = f"qps={rate:g}"
        intervals = round(rate * window)
        try:
            starts = _starts(bench, one, rate, intervals)
        except (Failure, RuntimeError) as error:
            bench.add("qps", name, run, failed=str(error))
            continue
        measured = intervals / (starts[-1] - starts[0])
        error_percent = (measured / rate - 1) * 100
        bench.add("qps", name, run, rate=measured, error=error_percent, most=worst_second(starts))
