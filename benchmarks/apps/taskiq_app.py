"""taskiq with its acknowledging Redis broker (a stream); an async task, as its docs recommend."""

import os
import time
from collections.abc import Iterable

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
URL = os.environ["BENCH_REDIS_URL"]

# a worker that is held while its queue is filled must not time out on the read it had under way
broker = RedisStreamBroker(URL, queue_name="bench", consumer_id="0", socket_timeout=120)
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL))


@broker.task
async def noop(n: int) -> int:
    hit(n)
    return n


async def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        await noop.kiq(n)


async def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        task = await noop.kiq(n)
        # its wait is a poll; the default interval of 0.2 s would be all that is measured
        result = await task.wait_result(check_interval=0.001, timeout=30)
        if result.return_value != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken


async def start() -> None:
    await broker.startup()


async def stop() -> None:
    await broker.shutdown()
