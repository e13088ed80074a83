"""Consume: a full queue, a warm worker, messages per second from the first run to the last.

The worker is started and warmed up, then held still (SIGSTOP) while the queue is filled, so that
neither its start nor the publisher is measured; the number of messages is chosen for each
contestant by a calibration pass so that its window is long enough. Results are off, but where they
are said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..bench import Bench, Failure
from ..contestants import CONTESTANTS, Contestant
from ..meter import CAPACITY
from ..process import Worker

__all__ = ["Figures", "consume", "measure", "take"]
WITH_RESULTS = ("fsdf REDIS_ACK_ABLE processes", "fsdf REDIS_ACK_ABLE threading")


@dataclass(slots=True)
class Figures:
    """One pass over a full queue."""

    count: int
    window: float  # seconds from the first run to the last
    rate: float
    cpu: float  # microseconds of the worker per message
    server_cpu: float
    rss: float
    leased: int | None


def take(
    bench: Bench, one: Contestant, environment: Mapping[str, str], worker: Worker, count: int
) -> Figures:
    """Fill the queue with `count` messages behind a held worker, let it go, and measure."""
    if not one.server:
        time.sleep(2.0)  # held in the middle of a transaction, it would keep the file locked
    worker.hold()
    bench.meter.clear(count)
    bench.fill(one, environment, count)
    most = 0

    def look() -> None:
        nonlocal most
        if one.leased is not None:
            most = max(most, one.leased(bench.server.client))

    if early := len(bench.meter.runs(count)):
        raise Failure(f"{early} messages ran while the worker was held")
    cpu, server = worker.cpu(), bench.server.cpu()
    worker.release()
    bench.await_runs(worker, count, 60 + 20 * bench.options.window, look)
    cpu, server = worker.cpu() - cpu, bench.server.cpu() - server
    runs = bench.meter.runs(count)
    window = runs[-1] - runs[0]
    each = 1e6 / count
    leased = None if one.leased is None else most
    rate = (count - 1) / window
    return Figures(count, window, rate, cpu * each, server * each, worker.rss(), leased)


def _count(bench: Bench, one: Contestant, environment: Mapping[str, str], worker: Worker) -> int:
    """Calibrate: passes of growing length until one lasts long enough to foretell the rest."""
    options = bench.options
    if options.messages:
        return min(options.messages, CAPACITY)
    if one.name not in bench.counts:
        count, enough = 500, 0.1 * options.window
        while True:
            figures = take(bench, one, environment, worker, count)
            if figures.window >= enough or count == CAPACITY:
                break
            growth = min(20.0, 1.5 * enough / max(figures.window, 1e-3))
            count = min(CAPACITY, int(count * max(growth, 2.0)))
        bench.counts[one.name] = min(CAPACITY, int(figures.rate * options.window * 1.15) + 1)
    return bench.counts[one.name]


def _long_enough(
    bench: Bench, one: Contestant, environment: Mapping[str, str], worker: Worker
) -> Figures:
    """Measure; once more with more messages when the calibration has promised too little."""
    wanted = bench.options.window
    for _ in range(3):
        count = _count(bench, one, environment, worker)
        figures = take(bench, one, environment, worker, count)
        if figures.window >= wanted or bench.options.messages or count == CAPACITY:
            break
        bench.counts[one.name] = min(CAPACITY, int(count * wanted / figures.window * 1.2))
    return figures


def with_results(one: Contestant) -> Contestant:
    """The same, storing results."""
    return replace(one, name=f"{one.name}, results", leased=None)


def measure(
    bench: Bench, one: Contestant, run: int, scenario: str = "consume", *, results: bool = False
) -> None:
    """Start one contestant, choose its number of messages, measure and record."""
    bench.fresh()
    environment = bench.environment(one, results=results)
    try:
        with bench.worker(one, environment) as worker:
            figures = _long_enough(bench, one, environment, worker)
    except (Failure, RuntimeError) as error:
        bench.add(scenario, one.name, run, failed=str(error))
        return
    bench.add(
        scenario,
        one.name,
        run,
        rate=figures.rate,
        messages=figures.count,
        window=figures.window,
        worker_us=figures.cpu,
        server_us=figures.server_cpu if one.server else None,
        rss=figures.rss,
        leased=figures.leased,
    )


def consume(bench: Bench, run: int) -> None:
    """Measure every contestant once."""
    for one in bench.contestants(CONTESTANTS):
        measure(bench, one, run)
        if one.name in WITH_RESULTS:  # looking for leases would scan them
            measure(bench, with_results(one), run, results=True)
