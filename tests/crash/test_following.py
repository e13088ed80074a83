"""A worker that dies beside the call that ends a step and leases the next one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine import default_engine, task_deco
from fsdf_engine.errors import TaskFailed

WORKER = Path(__file__).parent / "following_worker.py"
LEASE, BOUND = 0.5, 60.0
# Where it dies, and which steps run in all; what was acknowledged and has not ended is lost.
LATE = {"before 3": "0 1 2 3 3 4 5", "after 3": "0 1 2 3 4 5", "before 0": "0 0 1 2 3 4 5"}
EARLY = {"before 3": "0 1 2 3", "after 3": "0 1 2 3"}
LOST = {"before 3": "step-3", "after 3": "step-4"}  # whose waiter learns it
PLACES = [("late", place) for place in LATE] + [("early", place) for place in EARLY]


@pytest.mark.parametrize("broker", ["redis_ack"], indirect=True)
@pytest.mark.parametrize(("ack", "place"), PLACES)
def test_kill_9_beside_it_loses_no_step_and_repeats_at_most_the_one(broker, spawn, ack, place):
    step = task_deco("steps", broker_kind=broker, lease=LEASE, is_using_rpc_mode=True)(lambda n: n)
    step.push(0)
    dying = spawn(broker, LEASE, ack, *place.split())
    dying.wait(BOUND)
    assert dying.returncode == -signal.SIGKILL
    assert sum(step.size()[:3]) == (1 if ack == "late" else 0)
    spawn(broker, LEASE, ack)
    runs = (EARLY if ack == "early" else LATE)[place].split()
    until(lambda: spawn.ledger.read_text().split() == runs, BOUND)
    until(lambda: sum(step.size()[:3]) == 0, BOUND)
    assert spawn.ledger.read_text().split() == runs
    if ack == "early":
        with pytest.raises(TaskFailed, match="lost"):
            default_engine().result(LOST[place], step.options).get(timeout=BOUND)
