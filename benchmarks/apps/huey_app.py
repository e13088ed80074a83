"""huey on Redis; it has no acknowledgement, so it is at most once."""

import logging
import os
import time
from collections.abc import Iterable

from huey import RedisHuey

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
logging.getLogger("huey").setLevel(logging.WARNING)
huey = RedisHuey(
    "bench", url=os.environ["BENCH_REDIS_URL"], results=RESULTS, blocking=True, immediate=False
)


@huey.task()
def noop(n: int) -> int:
    hit(n)
    return n


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        noop(n)


def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        if noop(n).get(blocking=True, timeout=30) != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken
