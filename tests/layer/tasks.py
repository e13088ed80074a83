"""The app whose workers are killed: tasks on every broker that the environment names.

Child processes import this module.
"""

from __future__ import annotations

import os
import threading

from fsdf_engine import Retry, current
from layer.toy import Toy

MODE = os.environ.get("LAYER_MODE", "threads")
LEDGER = os.environ.get("LAYER_LEDGER", os.devnull)
LEASE = float(os.environ.get("LAYER_LEASE", "1.0"))
SLOTS = 4
DURABLE = ("sqlite", "redis_ack", "redis_stream", "redis_brpoplpush", "redis")
BROKERS = os.environ.get("LAYER_BROKERS", ",".join(DURABLE)).split(",")
QUEUES = [(broker, ack) for broker in BROKERS for ack in ("late", "early")]
app = Toy(MODE, lease=LEASE, max_retry_times=3, prefetch=20)
fd = os.open(LEDGER, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
pause = threading.Event()


def note(what: str) -> None:
    os.write(fd, f"{what} {current.task_id}\n".encode())


def work(n: int) -> int:
    note("start")
    pause.wait(0.001)
    note("end")
    return n * n


def flaky(n: int) -> int:
    """Fail first in place, then as a message that is sent anew."""
    note("start")
    if current.attempt < 2:
        raise Retry(changes={"kwargs": {"n": n}} if current.attempt else None)
    note("end")
    return n


def slow(n: int) -> None:
    """Take longer than the message allows."""
    note("start")
    while not pause.wait(0.002):
        pass


async def aslow(n: int) -> None:
    import asyncio

    note("start")
    await asyncio.sleep(60.0)


def total(values: list[int]) -> int:
    note("start")
    return sum(values)


aslow.__name__ = "slow"
for place in QUEUES:
    for fn in (work, flaky, aslow if MODE == "asyncio" else slow, total):
        app.declare(fn, *place)
resolve = app.plan
