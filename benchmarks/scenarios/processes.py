"""One worker process against two, for a task of 300 microseconds of CPU."""

from __future__ import annotations

import os

from ..bench import Bench, Failure
from ..contestants import CONTESTANTS
from ..work import spin_length
from .consume import take

__all__ = ["processes"]

SECONDS = 300e-6


def processes(bench: Bench, run: int) -> None:
    """Measure fsdf with `--processes 1` and `2`, and with the PROCESSES pool of two children."""
    length = spin_length(SECONDS)
    expected = int(bench.options.window / SECONDS)
    for name, counts in (("threading", (1, 2)), ("processes", (1,))):
        (one,) = (c for c in CONTESTANTS if c.name == f"fsdf REDIS_ACK_ABLE {name}")
        if not bench.contestants((one,)):
            continue
        for many in counts:
            bench.fresh()
            environment = {
                **bench.environment(one),
                "BENCH_SPIN": str(length),
                "BENCH_SLOTS": "2" if name == "processes" else "8",
            }
            factor = 2 if many == 2 or name == "processes" else 1
            count = bench.options.messages or expected * factor
            arguments = () if one.python else ("--processes", str(many))
            label = f"{one.name}, 300 us, {many} process{'es' if many > 1 else ''}"
            try:
                with bench.worker(one, environment, arguments) as worker:
                    figures = take(bench, one, environment, worker, count)
            except (Failure, RuntimeError) as error:
                bench.add("processes", label, run, failed=str(error))
                continue
            bench.add(
                "processes",
                label,
                run,
                rate=figures.rate,
                messages=count,
                window=figures.window,
                worker_us=figures.cpu,
                cores=os.cpu_count(),
            )
