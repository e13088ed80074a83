"""rq."""

import os
import time
from collections.abc import Iterable

from redis import Redis
from rq import Queue

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))
# a result_ttl of 0 deletes the job when it has succeeded: rq's way of turning results off
result_ttl = 500 if RESULTS else 0


def noop(n: int) -> int:
    hit(n)
    return n


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        queue.enqueue(noop, n, result_ttl=result_ttl)


def publish_many(numbers: Iterable[int]) -> None:
    queue.enqueue_many([Queue.prepare_data(noop, (n,), result_ttl=result_ttl) for n in numbers])


def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        result = queue.enqueue(noop, n, result_ttl=result_ttl).latest_result(timeout=30)
        if result is None or result.return_value != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken
