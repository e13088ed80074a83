"""A worker that dies between any two of its steps: everybody learns one end of each message."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine import TaskFailed, default_engine, task_deco

WORKER = Path(__file__).parent / "step_worker.py"
BROKERS = ["sqlite", "redis_ack", "postgresql", "mysql"]
LEASE, BOUND = 0.5, 60.0
# The steps of a worker, and at which call of each it dies.
LATE = dict.fromkeys(["publish", "write", "add", "close", "settle"], 0)
EARLY = {**LATE, "put": 1, "settle": 1, "anew": 0, "bury": 0, "delete": 0}
PLACES = [
    (ack, f"{step}:after:{n}")  # the next step is not taken: so it stands for both sides
    for ack, steps in (("early", EARLY), ("late", LATE))
    for step, n in steps.items()
]
GROUPS, MEMBERS = 2, 3


def end(result, timeout=BOUND):
    """Return how it ended: as its waiter is told."""
    try:
        return "succeeded", result.get(timeout)
    except TaskFailed as failed:
        return failed.status, None


def stored(result, options):
    return end(default_engine().result(result.task_id, options))


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize(("ack", "place"), PLACES)
def test_kill_9_between_two_steps_leaves_one_end_to_everybody(broker, spawn, ack, place):
    options = {"broker_kind": broker, "lease": LEASE, "ack": ack, "is_using_rpc_mode": True}
    tasks = {
        name: task_deco("steps", name=name, joins_groups=True, **options)(lambda n: None)
        for name in ("member", "flaky", "failing")
    }
    then = task_deco("then", broker_kind=broker, is_using_rpc_mode=True)(lambda values: None)
    results = {(name, n): tasks[name].push(n) for n in range(2) for name in tasks}
    calls = [(n,) for n in range(MEMBERS)]
    groups = [tasks["member"].push_group(calls, then) for _ in range(GROUPS)]
    dying = spawn(broker, LEASE, ack, place)
    dying.wait(BOUND)
    assert dying.returncode == -signal.SIGKILL
    spawn(broker, LEASE, ack)
    ends = {key: end(result) for key, result in results.items()}
    of_groups = [end(result) for result in groups]
    until(lambda: sum(tasks["member"].size()[:3]) + sum(then.size()[:3]) == 0, BOUND)
    right = {"member": lambda n: n * n, "flaky": lambda n: n + 1}
    losses = {("lost", None)} if ack == "early" else set()
    for (name, n), told in ends.items():
        assert told == stored(results[name, n], tasks[name].options), (name, n)
        expected = ("failed", None) if name == "failing" else ("succeeded", right[name](n))
        assert told in {expected, *losses}
    for result, told in zip(groups, of_groups):
        assert told == stored(result, then.options)
        assert told == ("succeeded", [0, 1, 4]) or (losses and told == ("failed", None))
    runs = Counter(map(tuple, map(str.split, spawn.ledger.read_text().splitlines())))
    twice = {id for (id, _), count in runs.items() if count > 1}
    # What completes a group may be published twice, under the same id, and `then` runs late.
    assert ack == "late" or twice <= {result.task_id for result in groups}
