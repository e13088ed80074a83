"""Memory, calls that block, and where the threads are."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pprint import pformat
from typing import Any

from ..local import try_import
from ..platforms import signals
from .text import WhateverIO

__all__ = [
    "blockdetection", "sample_mem", "memdump", "sample", "humanbytes", "mem_rss", "ps", "cry",
]  # fmt: skip

Process = getattr(try_import("psutil"), "Process", None)

UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB"), (0, "b"))

_process: Any = None
_mem_sample: list[Any] = []


def _on_blocking(signum: int, frame: Any) -> None:
    raise RuntimeError(f"Blocking detection timed-out at: {inspect.getframeinfo(frame)}")


@contextmanager
def blockdetection(timeout: float) -> Iterator[Any]:
    """Raise RuntimeError in the main thread if this takes longer (SIGALRM); 0: never."""
    if not timeout:
        yield None
        return
    before = signals["ALRM"]
    signals["ALRM"] = _on_blocking
    try:
        signals.arm_alarm(timeout)
        yield None
    finally:
        if before and before != _on_blocking:
            signals["ALRM"] = before
        signals.reset_alarm()


def sample_mem() -> Any:
    """Take note of this process's memory, for `memdump`; return it."""
    now = mem_rss()
    _mem_sample.append(now)
    return now


def _memdump(samples: int = 10) -> tuple[list[Any], Any]:
    taken = list(_mem_sample)
    _mem_sample.clear()
    gc.collect()
    return taken if len(taken) <= samples else list(sample(taken, samples)), mem_rss()


def memdump(samples: int = 10, file: Any = None) -> None:
    """Print what `sample_mem` took note of, and the memory now."""
    say = partial(print, file=file)
    if ps() is None:
        say("- rss: (psutil not installed).")
        return
    before, now = _memdump(samples)
    if before:
        say("- rss (sample):")
        for memory in before:
            say(f"-    > {memory},")
    say(f"- rss (end): {now}.")


def sample(x: Sequence[Any], n: int, k: int = 0) -> Iterator[Any]:
    """Yield `n` items at equal distances, beginning at `k`."""
    step = len(x) // n
    return (x[place] for place in range(k, k + n * step, step) if place < len(x))


def hfloat(f: float, p: int = 5) -> Any:
    """Return a whole number as one, another one with `p` digits as text."""
    return int(f) if int(f) == f else f"{f:.{p}}"


def humanbytes(s: float) -> str:
    """Return a size in the largest unit."""
    size, unit = next((size, unit) for size, unit in UNITS if s >= size)
    return f"{hfloat(s / size if size else s)}{unit}"


def mem_rss() -> str | None:
    """Return this process's memory; None without psutil."""
    process = ps()
    return None if process is None else humanbytes(process.memory_info().rss)


def ps() -> Any:
    """Return psutil's view of this process; None without psutil."""
    global _process
    if _process is None and Process is not None:
        _process = Process(os.getpid())
    return _process


def cry(out: Any = None, sepchr: str = "=", seplen: int = 49) -> Any:
    """Return the stacks and locals of all threads as text."""
    out = WhateverIO() if out is None else out
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    line = sepchr * seplen
    for ident, frame in sys._current_frames().items():
        if ident not in names:  # left by a fork
            continue
        print(names[ident], line, sep="\n", file=out)
        traceback.print_stack(frame, file=out)
        print(line, "LOCAL VARIABLES", line, sep="\n", file=out)
        print(_shown(frame.f_locals), end="\n\n\n", file=out)
    return out.getvalue()


def _shown(found: Mapping[str, Any]) -> str:
    """Return variables as text: also such as have none, as an object that is just being made."""
    try:
        return pformat(found)
    except Exception:  # of somebody's `__repr__`
        pairs = (f"{name!r}: {_text(value)}" for name, value in sorted(found.items()))
        return "{" + ",\n ".join(pairs) + "}"


def _text(value: Any) -> str:
    try:
        return pformat(value)
    except Exception as error:
        return f"(cannot be shown: {type(error).__name__})"
