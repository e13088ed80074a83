"""Consume and publish, on servers which a worker that is held still would leave.

The queue is filled first, the worker is started then, and measured from its first run to its last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from ..bench import Bench, Failure
from ..contestants import Contestant
from ..meter import CAPACITY
from ..process import run_client

__all__ = ["WINDOW", "measure"]
WINDOW = 4.0  # seconds at most: there are many contestants
FILLED = 4_000  # messages of the pass that foretells how many a window needs
Around = contextlib.AbstractContextManager[object]


def _consumed(
    bench: Bench, one: Contestant, url: str, count: int, meanwhile: Around
) -> dict[str, Any]:
    """Fill a queue with `count` messages, start the worker, and measure."""
    environment = one.variables(url, bench.folder, results=False)
    bench.meter.clear(count)
    run_client(one.app, "fill", count, environment, bench.folder)
    with meanwhile, bench.worker(one, environment, warm=0) as worker:
        bench.await_runs(worker, count, 60 + 20 * bench.options.window)
        cpu, rss = worker.cpu(), worker.rss()
    runs = bench.meter.runs(count)
    window = runs[-1] - runs[0]
    return {
        "rate": (count - 1) / window, "messages": count, "window": window,
        "worker_us": cpu / count * 1e6, "rss": rss,
    }  # fmt: skip


def measure(
    bench: Bench,
    scenario: str,
    one: Contestant,
    run: int,
    url: str,
    actions: Sequence[str],
    meanwhile: Around | None = None,
) -> None:
    """Consume, `meanwhile` is entered; then publish by each of the client's `actions`."""
    around = meanwhile or contextlib.nullcontext()
    try:
        count = bench.options.messages or bench.counts.get(one.name)
        if count is None:
            rate = _consumed(bench, one, url, FILLED, contextlib.nullcontext())["rate"]
            count = min(CAPACITY, int(rate * bench.options.window * 1.1) + FILLED)
            bench.counts[one.name] = count
        bench.add(scenario, one.name, run, **_consumed(bench, one, url, count, around))
        environment = one.variables(url, bench.folder, results=False)
        for action in actions:
            told = run_client(one.app, action, bench.options.window / 2, environment, bench.folder)
            bench.add(
                f"{scenario}_publish", f"{one.name}, {action}", run,
                rate=told["count"] / told["wall"], client_us=told["cpu"] / told["count"] * 1e6,
                messages=told["count"],
            )  # fmt: skip
    except (Failure, RuntimeError) as error:
        bench.add(scenario, one.name, run, failed=str(error))
