"""Without a server: fsdf on SQLite beside persist-queue's SQLiteAckQueue, each in one process.

fsdf is measured by `consume` and `publish`; this adds persist-queue, as its documentation uses
it: get, work, ack, one after the other (more threads make it slower).
"""

from __future__ import annotations

from ..bench import Bench
from ..contestants import AT_LEAST, Contestant
from .consume import measure
from .publish import publish_one

__all__ = ["PERSIST_QUEUES", "local"]


def _persist_queue(synchronous: str) -> Contestant:
    return Contestant(
        f"persist-queue SQLiteAckQueue {synchronous}",
        "persist-queue",
        "benchmarks.apps.persistqueue_app",
        ("-m", "benchmarks.apps.persistqueue_app"),
        f"{AT_LEAST}; WAL, synchronous={synchronous}",
        "none",
        {"BENCH_PATH": "{folder}/queue.db.persist", "BENCH_SYNCHRONOUS": synchronous},
        slots="1 loop",
        server=False,
        python=True,
    )


PERSIST_QUEUES = (_persist_queue("NORMAL"), _persist_queue("FULL"))


def local(bench: Bench, run: int) -> None:
    """Measure persist-queue's publish and consume once, as shipped and with fsdf's durability."""
    for one in bench.contestants(PERSIST_QUEUES):
        publish_one(bench, one, "publish", run, one.name)
        measure(bench, one, run)
