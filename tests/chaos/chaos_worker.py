"""A worker of the chaos: chaos_worker.py LEDGER, configured by the environment.

Each run writes a line when it starts and one when it has done its work:

    what  task_id  attempt  deliveries  n  instant  parent's id or -
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from typing import Any

from fsdf_engine import current, default_engine, task_deco

LEASE = 2.0
OPTIONS: dict[str, Any] = {"lease": LEASE, "concurrent_num": 8}
pause, chance = threading.Event(), random.Random()
ledger = os.open(sys.argv[1], os.O_APPEND | os.O_CREAT | os.O_WRONLY) if sys.argv[1:] else -1


def note(what: str, n: int, parent: str = "-") -> None:
    """Write a line, whole."""
    told = (what, current.task_id, current.attempt, current.deliveries, n, time.time(), parent)
    os.write(ledger, (" ".join(map(str, told)) + "\n").encode())


@task_deco("chaos", name="plain", max_retry_times=0, **OPTIONS)
def plain(n: int) -> None:
    note("start", n)
    pause.wait(chance.random() * 0.02)
    note("end", n)


@task_deco("chaos", name="delayed", max_retry_times=0, **OPTIONS)
def delayed(n: int) -> None:
    note("start", n)
    note("end", n)


@task_deco("chaos", name="long", max_retry_times=0, **OPTIONS)
def long(n: int) -> None:
    """Run longer than a lease: it has to be renewed."""
    note("start", n)
    pause.wait(LEASE * 1.5)
    note("end", n)


@task_deco("chaos", name="flaky", max_retry_times=3, retry_backoff=0.7, **OPTIONS)
def flaky(n: int) -> None:
    """Fail twice: the first retry is made in place, the second through the broker."""
    note("start", n)
    if current.attempt < 2:
        raise OSError("not yet")
    note("end", n)


@task_deco("chaos", name="parent", max_retry_times=50, retry_backoff=0.1, **OPTIONS)
def parent(n: int) -> None:
    """Push two messages; where the server is away, as a retried run."""
    note("start", n)
    child.push(n, current.task_id)
    child.publish({"n": n, "parent": current.task_id}, countdown=0.3)
    note("end", n)


@task_deco("chaos.children", name="child", max_retry_times=0, **OPTIONS)
def child(n: int, parent: str) -> None:
    note("start", n, parent)
    note("end", n, parent)


@task_deco("chaos", name="answer", max_retry_times=0, is_using_rpc_mode=True, **OPTIONS)
def answer(n: int) -> int:
    note("start", n)
    pause.wait(chance.random() * 0.01)
    note("end", n)
    return 2 * n


if __name__ == "__main__":
    default_engine().consume_all()
