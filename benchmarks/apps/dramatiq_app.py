"""dramatiq on Redis."""

import os
import time
from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
URL = os.environ["BENCH_REDIS_URL"]

broker = RedisBroker(url=URL)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="bench", **({"store_results": True} if RESULTS else {}))
def noop(n: int) -> int | None:
    hit(n)
    return n if RESULTS else None


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        noop.send(n)


def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        if noop.send(n).get_result(block=True, timeout=30_000) != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken
