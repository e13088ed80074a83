"""A worker that dies beside the one step in which it publishes, stores and acknowledges."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine import task_deco

WORKER = Path(__file__).parent / "together_worker.py"
LEASE, BOUND = 0.5, 60.0


@pytest.mark.parametrize("broker", ["redis_ack"], indirect=True)
@pytest.mark.parametrize("place", ["before", "after"])
def test_kill_9_beside_the_step_leaves_all_of_it_or_none(broker, spawn, place):
    first, then = (
        task_deco(name, broker_kind=broker, lease=LEASE, is_using_rpc_mode=True)(lambda n: None)
        for name in ("first", "then")
    )
    result = first.push(1)
    dying = spawn(broker, LEASE, place)
    dying.wait(BOUND)
    assert dying.returncode == -signal.SIGKILL
    assert first.size()[:3] == ((0, 0, 1) if place == "before" else (0, 0, 0))
    assert then.size()[0] == (0 if place == "before" else 1)
    spawn(broker, LEASE)
    assert result.get(BOUND) == 2
    until(lambda: sum(first.size()[:3]) + sum(then.size()[:3]) == 0, BOUND)
    runs = spawn.ledger.read_text().split()
    assert runs == ["first"] * (2 if place == "before" else 1) + ["then"]
