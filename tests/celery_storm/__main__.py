"""A project whose workers are killed: PYTHONPATH=.:tests python -m celery_storm prefork late.

It starts a Redis of its own, sends tasks of all kinds, kills workers and children with SIGKILL
meanwhile, waits for all results and judges.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from helpers import RedisServer

from fsdf_compat import activate


def main() -> int:
    """Run one storm; say what it showed. The exit code is 1 where something is at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", help="prefork, threads, gevent, eventlet, solo or asyncio")
    parser.add_argument("ack", choices=["late", "early"])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lease", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fsdf-celery-storm-"))
    server = RedisServer(folder)
    server.start()
    os.environ.update(
        STORM_URL=server.url, STORM_LEDGER=str(folder / "log"), STORM_ACK=options.ack,
        STORM_POOL=options.pool, FSDF_LEASE=str(options.lease),
    )  # fmt: skip
    print(f"{options.pool} {options.ack}, seed {options.seed}, logs in {folder}", flush=True)
    try:
        return storm(options, folder)
    finally:
        server.stop()


def storm(options: argparse.Namespace, folder: Path) -> int:
    """Let it rage and judge."""
    activate()  # before anything else says `import celery`
    sys.path.insert(0, str(Path(__file__).parent))
    from celery_storm.storm import Storm
    from celery_storm.verdict import judge

    storm, began = Storm(options.pool, folder, options.seed), time.monotonic()
    try:
        storm.rage(options.tasks, options.kills)
        seen = storm.seen()
        found = judge(storm.calls.expected, seen)
    finally:
        storm.close()
    faults = [*storm.faults, *found.faults]
    print(
        f"{found.tasks} tasks, {dict(Counter(storm.kills))} killed in"
        f" {time.monotonic() - began:.0f} s: lost {found.lost}, behind those {found.behind},"
        f" bodies twice {found.twice} (claims that ended: {seen.claims}),"
        f" runs repeated {found.repeats}, faults {len(faults)}"
    )
    print(*faults[:20], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
