"""A worker that dies beside the one step in which it publishes, stores, marks and acknowledges."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine import TaskFailed, task_deco

WORKER = Path(__file__).parent / "together_worker.py"
LEASE, BOUND = 0.5, 60.0


# Where it dies, and what then runs in all; what was acknowledged and has no end is lost.
LATE = {"before 0": "first first then", "after 0": "first then"}
EARLY = {"before 0": "first then", "after 0": "", "before 1": "first", "after 1": "first then"}
PLACES = [("late", place) for place in LATE] + [("early", place) for place in EARLY]


@pytest.mark.parametrize("broker", ["redis_ack"], indirect=True)
@pytest.mark.parametrize(("ack", "place"), PLACES)
def test_kill_9_beside_the_step_leaves_all_of_it_or_none(broker, spawn, ack, place):
    first, then = (
        task_deco(name, broker_kind=broker, lease=LEASE, is_using_rpc_mode=True)(lambda n: None)
        for name in ("first", "then")
    )
    result = first.push(1)
    dying = spawn(broker, LEASE, ack, *place.split())
    dying.wait(BOUND)
    assert dying.returncode == -signal.SIGKILL
    is_leased = place == "before 0"
    assert first.size()[:3] == (0, 0, is_leased)
    runs = (EARLY if ack == "early" else LATE)[place].split()
    assert then.size().waiting == (0 if is_leased else runs.count("then"))
    spawn(broker, LEASE, ack)
    if "then" in runs:
        assert result.get(BOUND) == 2
    else:
        with pytest.raises(TaskFailed) as told:
            result.get(BOUND)
        assert told.value.status == "lost"
    until(lambda: sum(first.size()[:3]) + sum(then.size()[:3]) == 0, BOUND)
    assert spawn.ledger.read_text().split() == runs
