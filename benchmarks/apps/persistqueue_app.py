"""persist-queue's SQLiteAckQueue with the loop its documentation shows."""

import os
from collections.abc import Iterable
from typing import Any

from persistqueue import SQLiteAckQueue

from benchmarks.meter import hit

PATH = os.environ["BENCH_PATH"]
NORMAL = os.environ.get("BENCH_SYNCHRONOUS") == "NORMAL"


class Queue(SQLiteAckQueue):
    """As shipped it commits with SQLite's default, synchronous=FULL, and has no option for it."""

    def _new_db_connection(self, *args: Any, **options: Any) -> Any:
        connection = super()._new_db_connection(*args, **options)
        if NORMAL:
            connection.execute("PRAGMA synchronous=NORMAL")
        return connection


queue = Queue(PATH, auto_commit=True, multithreading=True)


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        queue.put({"n": n})


def work() -> None:
    """Get, run, acknowledge, for ever."""
    while True:
        item = queue.get()
        hit(item["n"])
        queue.ack(item)


if __name__ == "__main__":
    work()
