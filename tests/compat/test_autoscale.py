"""`--autoscale`: a worker has as many slots as its work needs."""

from __future__ import annotations

import os

from helpers import BOUND, until

TASKS = """
@app.task
def gated(n):
    note("started")
    (HERE / f"gate{n}").read_text()  # a fifo
"""


def test_children_start_as_work_needs_them_and_end_when_it_is_done(redis_project):
    proj = redis_project.write(TASKS)
    worker = redis_project.worker("-P", "prefork", "--autoscale=3,1", AUTOSCALE_KEEPALIVE="0.1")
    worker.says("--autoscale=3,1: up to 3 slots start as work needs them")
    worker.says("children that were idle for 0.1 s end, while more than 1 are left")
    worker.says("{min=1, max=3}")

    def scaled():
        [stats] = proj.app.control.inspect(timeout=BOUND, limit=1).stats().values()
        return stats["autoscaler"]

    gates = [redis_project.folder / f"gate{n}" for n in range(3)]
    for gate in gates:
        os.mkfifo(gate)
    sent = [proj.gated.delay(n) for n in range(3)]
    redis_project.noted(*["started"] * 3)
    assert scaled() == {"max": 3, "min": 1, "current": 3}
    for gate, each in zip(gates, sent):
        gate.write_text("go")
        each.get(timeout=BOUND)
    until(lambda: scaled()["current"] == 1)


def test_threads_start_as_work_needs_them(redis_project):
    redis_project.write("")
    worker = redis_project.worker("-P", "threads", "--autoscale=3,1")
    worker.says("--autoscale=3,1: up to 3 slots start as work needs them; those that were idle")
    worker.says("{min=1, max=3}")
