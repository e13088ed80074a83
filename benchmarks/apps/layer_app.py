"""A Celery project, run by Celery itself and by fsdf: no line knows by which."""

import os
import time
from collections.abc import Iterable
from typing import Any

from celery import Celery, chain, chord, group, signals

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
URL = os.environ["BENCH_REDIS_URL"]
HEADER, LINKS = 1000, 101

app = Celery("bench", broker=URL, backend=os.environ["BENCH_BACKEND"] if RESULTS else None)
app.conf.update(
    task_acks_late=os.environ.get("BENCH_ACKS") == "late",
    task_ignore_result=not RESULTS,
    # for short tasks, as Celery's guide has it (docs: Optimizing, Workers)
    worker_prefetch_multiplier=64,
    worker_enable_remote_control=False,
)
if os.environ.get("BENCH_RECEIVER") == "1":
    ended = 0

    @signals.task_postrun.connect
    def count(**said: Any) -> None:
        global ended
        ended += 1


@app.task(name="bench.noop")
def noop(n: int) -> int:
    hit(n)
    return n


@app.task(name="bench.increase")
def increase(n: int) -> int:
    return n + 1


@app.task(name="bench.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        noop.delay(n)


def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        if noop.delay(n).get(timeout=30) != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken


def _took(canvas: Any, wanted: Any) -> float:
    start = time.perf_counter()
    if canvas.delay().get(timeout=60) != wanted:
        raise AssertionError(canvas)
    return time.perf_counter() - start


def _header() -> Any:
    return group(increase.s(n) for n in range(HEADER))


def groups() -> float:
    return _took(_header(), list(range(1, HEADER + 1)))


def chords() -> float:
    return _took(chord(_header(), total.s()), HEADER * (HEADER + 1) // 2)


def chains() -> float:
    return _took(chain(increase.s(0), *(increase.s() for _ in range(LINKS - 1))), LINKS)
