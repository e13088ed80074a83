"""A worker that dies between any two steps of a group: its message leaves, under one id."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from helpers import BOUND, until

from fsdf_engine import task_deco

WORKER = Path(__file__).parent / "group_worker.py"
BROKERS = ["sqlite", "redis_ack", "redis_stream", "redis_brpoplpush", "postgresql", "mysql"]
LEASE = {"sqlalchemy": 1.5}  # of others 0.5 s; servers that write to the disk have slow moments
# What a place at which a worker dies means for the message: how often it is published.
PLACES = {
    "before:add": 1,
    "after:add": 1,
    "before:publish": 1,
    "after:publish": 2,
    "before:close": 2,
    "after:close": 1,
    "before:settle": 1,
    "after:settle": 1,
}


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("place", list(PLACES))
def test_kill_9_between_two_steps_leaves_the_message_to_another_worker(broker, spawn, place):
    lease = LEASE.get(broker, 0.5)
    options = {"broker_kind": broker, "lease": lease}
    member = task_deco("members", joins_groups=True, **options)(lambda n: None)
    then = task_deco("then", **options)(lambda values: None)
    results = [member.push_group([(n,) for n in range(3)], then) for _ in range(3)]
    dying = spawn(broker, lease, "late", place)
    dying.wait(BOUND)
    assert dying.returncode == -signal.SIGKILL
    spawn(broker, lease, "late")
    ids = {result.task_id for result in results}

    def lines():
        if not spawn.ledger.exists():
            return []
        return [line.split(" ", 1) for line in spawn.ledger.read_text().splitlines()]

    until(lambda: {id for id, _ in lines()} == ids)
    until(lambda: sum(member.size()) + sum(then.size()) == 0)
    for id in ids:
        values = [json.loads(text) for other, text in lines() if other == id]
        assert values in ([[0, 1, 4]] * n for n in range(1, PLACES[place] + 1))


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_a_member_that_was_acknowledged_and_lost_with_its_worker_has_failed(broker, spawn):
    lease = LEASE.get(broker, 0.5)
    options = {"broker_kind": broker, "lease": lease}
    member = task_deco("members", joins_groups=True, ack="early", **options)(lambda n: None)
    then = task_deco("then", **options)(lambda values: None)
    for _ in range(3):
        member.push_group([(n,) for n in range(3)], then)
    dying = spawn(broker, lease, "early", "run")
    dying.wait(BOUND)
    assert dying.returncode == -signal.SIGKILL
    spawn(broker, lease, "early")

    def over():
        ran = len(spawn.ledger.read_text().splitlines()) if spawn.ledger.exists() else 0
        return then.size().dead and ran + then.size().dead == 3

    until(over)
    assert all("its worker was lost" in letter.reason for letter in then.dead_letters())
