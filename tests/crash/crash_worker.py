"""A worker process for crash tests: crash_worker.py BROKER LEDGER LEASE [MODE].

Writes one line per run to the ledger: what ran, in which process, the most messages that this
process has held at once, and how many of those have not ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from fsdf_engine import LeaseLost, current, default_engine, task_deco

broker, ledger, lease, *mode = sys.argv[1:]
fd = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
options = {"broker_kind": broker, "lease": float(lease), "max_retry_times": 0}
pause, BOUND = threading.Event(), 60.0


@task_deco("crash", concurrent_num=4, **options)
def work(n: int) -> None:
    pause.wait(0.001)
    [handle] = default_engine().handles()
    consumer = handle.consumer
    in_pool = consumer.fetched - consumer.outbox.last_ended()
    os.write(fd, b"%d %d %d %d\n" % (n, os.getpid(), consumer.most_held, in_pool))


@task_deco("follow", **options)
def follow(pid: int) -> None: ...


@task_deco("stalled", concurrent_num=1, is_using_rpc_mode=True, **options)
def stalled(go: str) -> int:
    """Say that we run; wait until a file appears; then push a follow-up."""
    os.write(fd, b"start %d\n" % os.getpid())
    while not Path(go).exists():
        pause.wait(0.01)
    try:
        follow.push(os.getpid())
        os.write(fd, b"pushed %d\n" % os.getpid())
    except LeaseLost:
        os.write(fd, b"refused %d\n" % os.getpid())
    assert current.task_id
    return os.getpid()


@task_deco("early", concurrent_num=4, ack="early", is_using_rpc_mode=True, **options)
def early(n: int) -> int:
    """The last one does not end."""
    os.write(fd, b"start %d\n" % n)
    while n == 3:
        pause.wait(BOUND)
    return n


@task_deco("company", concurrent_num=16, **options)
def company(n: int) -> None:
    """One message ends its worker, while the others that it shares it with are in their runs."""
    os.write(fd, b"start %d\n" % n)
    pause.wait(0.1 if n == 0 else 0.3)
    if n == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(fd, b"end %d\n" % n)


if __name__ == "__main__":
    {"stalled": stalled, "company": company, "early": early}.get("".join(mode), work).consume()
