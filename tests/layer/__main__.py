"""Storms over the layer by hand: PYTHONPATH=.:tests python -m layer threads --seconds 600.

With `--brokers memory` there are no kills: the workers are threads, greenlets, coroutines or
children of this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from layer.patching import patch


def main() -> int:
    """Let storms rage; say what they showed. The exit code is 1 where something is at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", help="threads, asyncio, gevent, eventlet, processes, single_thread")
    parser.add_argument("--brokers", default="", help="of all, these only: redis,redis_ack")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    brokers = [name for name in options.brokers.split(",") if name]
    if "memory" in brokers:
        patch(options.mode)
    folder = Path(tempfile.mkdtemp(prefix="fsdf-layer-"))
    os.environ["FSDF_SQLITE_PATH"] = str(folder / "fsdf.sqlite")
    return rounds(options.mode, brokers, folder, options.seed, options.seconds)


def rounds(mode: str, brokers: list[str], folder: Path, seed: int, seconds: float) -> int:
    """Send, kill and judge, until the seconds are over or something is at fault."""
    from helpers import RedisServer

    from layer.storm import Storm

    server = None if brokers == ["memory"] or brokers == ["sqlite"] else RedisServer(folder)
    if server:
        server.start()
        os.environ["FSDF_REDIS_URL"] = server.url
    print(f"{mode}, {brokers or 'all'}, seed {seed}, ledger and logs in {folder}", flush=True)
    storm = Storm(mode, folder, seed, brokers)
    found, n, end = [], 0, time.monotonic() + seconds
    try:
        while not (found or (n and time.monotonic() > end)):
            storm.kills, n = 0, n + 1
            storm.send(40, f"{n}.")
            if "memory" in brokers:
                storm.serve()
            else:
                storm.rage(kills=5)
            found = list(storm.faults())
            storm.kill()
    finally:
        storm.close()
        if server:
            server.stop()
    print(f"{n} storms", *found, sep="\n", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
