"""Idle: CPU, memory and commands of a worker with nothing to do, and how fast it wakes.

Commands are as Redis counts them: those that a Lua script calls are counted too.

Wake-up is from just before another process's push to the task's first line, both on
CLOCK_MONOTONIC; for fsdf on Redis also by another program's bare LPUSH of flat JSON.
"""

from __future__ import annotations

import random
import statistics
import time

from ..bench import Bench, Failure
from ..contestants import CONTESTANTS, Contestant
from ..process import Worker, run_client
from .round_trip import percentile

__all__ = ["idle"]

# without acknowledgement the pools wait in the same way as with it: threads stand for all
IDLE = tuple(
    one
    for one in CONTESTANTS
    if not one.name.startswith("fsdf REDIS ") or one.name.endswith("threading")
)


def _quiet(bench: Bench, worker: Worker, run: int, one: Contestant) -> None:
    settle, window = (1.0, 4.0) if bench.options.quick else (5.0, 10.0)
    time.sleep(settle)
    calls, cpu, start = bench.server.calls(), worker.cpu(), time.monotonic()
    time.sleep(window)
    spent = time.monotonic() - start
    later = bench.server.calls()
    made = {name: n - calls.get(name, 0) for name, n in later.items() if n > calls.get(name, 0)}
    bench.add(
        "idle",
        one.name,
        run,
        cpu=(worker.cpu() - cpu) / spent * 100,
        commands=sum(made.values()) / spent,
        rss=worker.rss(),
        processes=len(worker.tree()),
        which={name: round(n / spent, 2) for name, n in made.items()},
    )


def _wake(bench: Bench, worker: Worker, run: int, name: str, sent: list[float]) -> None:
    count = len(sent)
    bench.await_runs(worker, count, 30)
    late = [(bench.meter.at(n) - at) * 1e3 for n, at in enumerate(sent)]
    bench.add(
        "wake", name, run, p50=statistics.median(late), p99=percentile(late, 0.99), count=count
    )


def _foreign(bench: Bench, count: int) -> list[float]:
    sent, dice = [], random.Random(11)
    for n in range(count):
        time.sleep(0.02 + 0.06 * dice.random())
        body = b'{"n":%d}' % n
        sent.append(time.monotonic())
        bench.server.client.lpush("bench", body)
    return sent


def idle(bench: Bench, run: int) -> None:
    """Measure every contestant, in the first run only: nothing here depends on the others."""
    if run > 1:
        return
    count = 50 if bench.options.quick else 200
    for one in bench.contestants(IDLE):
        bench.fresh()
        environment = bench.environment(one)
        try:
            with bench.worker(one, environment) as worker:
                _quiet(bench, worker, run, one)
                bench.meter.clear(count)
                answer = run_client(one.app, "wake", count, environment, bench.folder)
                _wake(bench, worker, run, one.name, answer["sent"])
                if one.server and one.app.endswith("fsdf_app"):
                    bench.meter.clear(count)
                    _wake(bench, worker, run, f"{one.name}, LPUSH", _foreign(bench, count))
        except (Failure, RuntimeError) as error:
            bench.add("idle", one.name, run, failed=str(error))
