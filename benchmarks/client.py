"""One publishing process: `python -m benchmarks.client APP ACTION ARGUMENT`; writes answer.json.

fill [FIRST-]END       publish the numbers FIRST (0) .. END-1 in the fastest way
publish SECONDS        one by one, for at least so long
publish_many SECONDS   in batches, for at least so long
round_trip SECONDS     publish and wait for the result, one after the other
times:FUNCTION SECONDS call a function that tells how long something took
wake COUNT             publish one every now and then and tell when (CLOCK_MONOTONIC)
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., Any]


def _plain(function: Call, loop: asyncio.AbstractEventLoop) -> Call:
    if inspect.iscoroutinefunction(function):
        return lambda *args: loop.run_until_complete(function(*args))
    return function


def _fill(app: Any, call: Callable[[str], Call], first: int, end: int) -> dict[str, Any]:
    many = call("publish_many" if hasattr(app, "publish_many") else "publish")
    for start in range(first, end, 20_000):
        many(range(start, min(start + 20_000, end)))
    return {"count": end - first}


def _rate(publish: Call, seconds: float, chunk: int) -> dict[str, Any]:
    publish(range(chunk))  # connections, caches
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - wall) < seconds:
        publish(range(count, count + chunk))
        count += chunk
        wanted = int(count / max(time.perf_counter() - wall, 1e-3) * 0.2)
        chunk = max(1, min(wanted, 50_000))
    return {"count": count, "wall": spent, "cpu": time.process_time() - cpu}


def _round_trips(round_trips: Call, seconds: float) -> dict[str, Any]:
    round_trips(range(20))
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        taken += round_trips(range(10))
    return {"taken": taken}


def _times(function: Call, seconds: float) -> dict[str, Any]:
    function()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        taken.append(function())
    return {"taken": taken}


def _wakes(publish: Call, count: int) -> dict[str, Any]:
    publish(range(count, count + 3))
    sent = []
    dice = random.Random(7)
    for n in range(count):
        time.sleep(0.02 + 0.06 * dice.random())
        sent.append(time.monotonic())
        publish(range(n, n + 1))
    return {"sent": sent}


def main(name: str, action: str, argument: str) -> None:
    """Carry out one action and write what came of it."""
    app = importlib.import_module(name)
    loop = asyncio.new_event_loop()

    def call(function: str) -> Call:
        return _plain(getattr(app, function), loop)

    if hasattr(app, "start"):
        call("start")()
    if action == "fill":
        first, _, end = argument.rpartition("-")
        answer = _fill(app, call, int(first or 0), int(end))
    elif action == "wake":
        answer = _wakes(call("publish"), int(argument))
    elif action.startswith("times:"):
        answer = _times(call(action.partition(":")[2]), float(argument))
    elif action == "round_trip":
        answer = _round_trips(call("round_trips"), float(argument))
    else:
        answer = _rate(call(action), float(argument), 1_000 if action == "publish_many" else 20)
    if hasattr(app, "stop"):
        call("stop")()
    # a file, because some contestants write to standard output, or replace print
    Path("answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
