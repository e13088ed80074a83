"""Celery, tuned for short tasks by its own guide (docs: Optimizing, Workers)."""

import os
import time
from collections.abc import Iterable

from celery import Celery

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
URL = os.environ["BENCH_REDIS_URL"]

app = Celery("bench", broker=URL, backend=URL if RESULTS else None)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=not RESULTS,
    task_serializer="json",
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "64")),
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    task_send_sent_event=False,
    task_store_errors_even_if_ignored=False,
    worker_hijack_root_logger=True,
)


@app.task(name="bench.noop")
def noop(n: int) -> int:
    hit(n)
    return n


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
