"""What a child process costs: `python -m benchmarks.children [--megabytes 300] [--children 20]`.

For each way to start one: the time until it is ready for its first run, and the memory that each of
several idle ones adds (PSS, and what is private), with modules of that size imported. Prints lines
of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from fsdf_engine import default_engine
from fsdf_engine.core.family import starting
from fsdf_engine.pools.pool_child import PoolChild
from fsdf_engine.zygote import start_zygote

METHODS = ("zygote", "forkserver", "spawn")
PAUSE = 0.3  # seconds between two starts
TOGETHER = 4  # idle ones that share what they can
MODULE = """
LARGE = [(n, str(n), [n]) for n in range({count})]
def resolve(queue, name):
    raise LookupError(name)
"""
OBJECTS = 4300  # of these to a megabyte


def _ready(method: str) -> tuple[PoolChild, float]:
    """Start a child; return it with the seconds until it says that it is ready. Blocks."""
    begin, context = time.perf_counter(), starting("" if method == "zygote" else method)
    if method == "forkserver":
        context.set_forkserver_preload(["__main__", "large"])
    child = PoolChild(context, ("large",), "large:resolve", 0, 0)
    while not child.ready:
        select.select([child.socket], [], [])
        child.receive()
    return child, time.perf_counter() - begin


def _memory(pid: int) -> tuple[int, int]:
    """Return (PSS, private) in bytes."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, _ = line.split()
        sizes[name] = int(size) * 1024
    return sizes["Pss:"], sizes["Private_Dirty:"] + sizes["Private_Clean:"]


def _measure(method: str, children: int) -> dict[str, object]:
    __import__("large")
    default_engine()  # as a worker command has by then
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    end = start_zygote() if method == "zygote" else None
    seconds = []
    first, once = _ready(method)  # starts the fork server, too
    for _ in range(children):
        threading.Event().wait(PAUSE)  # as children are replaced; below they start in a row
        child, took = _ready(method)
        seconds.append(took)
        child.child.kill()
        child.child.bury()
    begin = time.perf_counter()
    idle = [_ready(method)[0] for _ in range(TOGETHER)]
    row = (time.perf_counter() - begin) / TOGETHER
    sizes = [_memory(child.pid) for child in idle]
    for child in (first, *idle):
        child.child.kill()
        child.child.bury()
    if end:
        end()
    return {
        "method": method, "imported_mb": imported, "children": children,
        "ready_ms_median": round(statistics.median(seconds) * 1000, 1),
        "ready_ms_worst": round(max(seconds) * 1000, 1), "first_ms": round(once * 1000, 1),
        "in_a_row_ms": round(row * 1000, 1),
        "pss_mb": round(statistics.mean(pss for pss, _ in sizes) / 2**20, 1),
        "private_mb": round(statistics.mean(own for _, own in sizes) / 2**20, 1),
        "python": platform.python_version(), "system": platform.release(),
    }  # fmt: skip


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.children", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=300, help="default: %(default)d")
    parser.add_argument("--children", type=int, default=20, help="default: %(default)d")
    parser.add_argument("--only", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:  # in a process of its own
        print(json.dumps(_measure(options.only, options.children)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        count = options.megabytes * OBJECTS
        Path(folder, "large.py").write_text(MODULE.format(count=count))
        for method in METHODS:
            command = [sys.executable, "-m", "benchmarks.children", "--only", method]
            command += ["--children", str(options.children)]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": folder})


if __name__ == "__main__":
    _main()
