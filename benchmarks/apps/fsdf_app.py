"""fsdf. BENCH_BROKER and BENCH_POOL are names of BrokerEnum and ConcurrentModeEnum."""

# ruff: noqa: E402  (monkey-patching comes first, as in a user's script)
import os

POOL = os.environ.get("BENCH_POOL", "THREADING")
if os.environ.get("BENCH_ROLE") == "worker":
    if POOL == "GEVENT":
        from gevent import monkey

        monkey.patch_all()
    elif POOL == "EVENTLET":
        import eventlet

        eventlet.monkey_patch()

import time
from collections.abc import Iterable

from benchmarks.meter import hit
from benchmarks.work import spin
from fsdf_engine import BrokerEnum, ConcurrentModeEnum, task_deco

BROKER = os.environ.get("BENCH_BROKER", "REDIS_ACK_ABLE")
options = {
    "broker_kind": BrokerEnum[BROKER],
    "concurrent_mode": ConcurrentModeEnum[POOL],
    "concurrent_num": int(os.environ.get("BENCH_SLOTS", "50")),
    "is_using_rpc_mode": os.environ.get("BENCH_RESULTS") == "1",
}
if "BENCH_QPS" in os.environ:
    options["qps"] = float(os.environ["BENCH_QPS"])
SPIN = int(os.environ.get("BENCH_SPIN", "0"))

if POOL == "ASYNC":

    @task_deco("bench", **options)
    async def noop(n: int) -> int:
        hit(n)
        return n

elif SPIN:

    @task_deco("bench", **options)
    def noop(n: int) -> int:
        spin(SPIN)
        hit(n)
        return n

else:

    @task_deco("bench", **options)
    def noop(n: int) -> int:
        hit(n)
        return n


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        noop.push(n)


def publish_many(numbers: Iterable[int]) -> None:
    noop.push_many([(n,) for n in numbers])


def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        if noop.push(n).get(timeout=30) != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken


if __name__ == "__main__":
    noop.consume().join()
