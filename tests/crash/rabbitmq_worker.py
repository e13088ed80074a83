"""A worker on RabbitMQ that tests kill, or its server: rabbitmq_worker.py BROKER LEDGER LEASE...

Writes one line per run to the ledger: what ran, in which process, the most messages that this
process has held at once.
"""

from __future__ import annotations

import os
import sys
import threading

from fsdf_engine import default_engine, task_deco

broker, ledger, lease, *mode = sys.argv[1:]
fd = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
options = {"broker_kind": broker, "lease": float(lease), "max_retry_times": 0}
pause = threading.Event()


@task_deco("crash", concurrent_num=4, **options)
def work(n: int) -> None:
    pause.wait(0.001)
    [handle] = default_engine().handles()
    os.write(fd, b"%d %d %d\n" % (n, os.getpid(), handle.consumer.most_held))


@task_deco("long", concurrent_num=4, **options)
def long(n: int, seconds: float) -> None:
    os.write(fd, b"start %d\n" % n)
    pause.wait(seconds)
    os.write(fd, b"end %d\n" % n)


if __name__ == "__main__":
    {"long": long}.get("".join(mode), work).consume()
