"""A layer's resolver and the functions that it finds; what a name says, the resolver does.

A name is a function of this module, perhaps with options behind it: `add ack=early`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from fsdf_engine.engine import default_engine

QUEUE = "found"


def note(text: str) -> None:
    """Write a line down where the test reads it, in any process."""
    if path := os.environ.get("FOUND_NOTES"):
        with open(path, "ab", buffering=0) as file:
            file.write(f"{os.getpid()} {text}\n".encode())


def work(n: int) -> int:
    note(f"work {n}")
    return n + 1


async def awork(n: int) -> int:
    await asyncio.sleep(0)
    note(f"work {n}")
    return n + 1


def linger(n: int) -> None:
    time.sleep(60)


async def alinger(n: int) -> None:
    await asyncio.sleep(60)


def resolve(queue: str, name: str) -> object:
    """Return the task of a name, or get into the trouble that it says."""
    note(f"resolve {name}")
    function, _, options = name.partition(" ")
    match function:
        case "missing":
            return None
        case "raise":
            raise ImportError("no module named 'pandas'")
        case "exit":
            sys.exit(3)
        case "die":
            os._exit(9)
        case "die_once":
            if not os.path.exists(path := os.environ["FOUND_NOTES"] + ".died"):
                open(path, "w").close()
                os._exit(9)
            function = "work"
        case "hang":
            while True:
                time.sleep(0.01)
        case "wait":
            while not os.path.exists(os.environ["FOUND_NOTES"] + ".go"):
                time.sleep(0.005)
            function = "work"
        case "slow":
            time.sleep(0.8)  # as who finds it among many files
            function = "work"
        case "nonsense":
            return 5
        case "other":
            name = "another name"
            function = "work"
        case "stray":
            queue, function = "elsewhere", "work"
    given: dict[str, object] = {}
    for option in options.split():
        key, _, value = option.partition("=")
        given[key] = float(value) if value.replace(".", "").isdigit() else value
        if value in ("True", "False"):
            given[key] = value == "True"
    fn = globals()[os.environ.get("FOUND_PREFIX", "") + function]
    return default_engine().task(fn, queue, name=name, max_retry_times=0, **given)  # type: ignore[arg-type]
