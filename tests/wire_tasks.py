"""Tasks that get messages of two wire forms, in any mode: child processes import this module."""

from __future__ import annotations

import os

import toy_wire

from fsdf_engine import current, default_engine, task_deco
from fsdf_engine.errors import Retry

MODE = os.environ.get("WIRE_MODE", "threads")
BROKER = os.environ.get("WIRE_BROKER", "memory")
ACK = os.environ.get("WIRE_ACK", "late")
OPTIONS = {
    "broker_kind": BROKER, "concurrent_mode": MODE, "concurrent_num": 1 if MODE == "inline" else 2,
    "is_using_rpc_mode": True, "ack": ACK,
}  # fmt: skip
default_engine().codecs = (toy_wire.Troubled(), *default_engine().codecs)


def declare(name, **options):
    """Declare a function on the queue; a coroutine function where the mode wants one."""

    def declare(fn):
        async def afn(n, more=0):
            return fn(n, more)

        options.setdefault("max_retry_times", 0)
        task = task_deco("toys", name=name, **OPTIONS, **options)
        return task(afn if MODE == "asyncio" else fn)

    return declare


@declare("work")
def work(n, more=0):
    return [n, more]


@declare("quick", function_timeout=0.3)
def quick(n, more=0):
    return [n, more]


@declare("changing", max_retry_times=3)
def changing(n, more=0):
    """Raise for each attempt before `n`: what the message is like is in its result."""
    if current.attempt < n:
        changes = {"kwargs": {"n": n, "more": more + 1}} if n == 2 else None
        raise Retry(delay=1.01 if n == 1 else 0.0, changes=changes)
    return [n, more, current.attempt, current.headers]
