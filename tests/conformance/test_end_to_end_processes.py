"""The PROCESSES column of brokers x pools: the tasks of `e2e_tasks`, in child processes."""

from __future__ import annotations

import importlib
import sys
from collections import Counter

import pytest
from conformance.end_to_end import BROKERS
from helpers import BOUND, until

from fsdf_engine import TaskFailed
from fsdf_engine.engine import default_engine


@pytest.fixture(params=BROKERS)
def tasks(request, tmp_path, monkeypatch):
    """The module, freshly imported for a broker."""
    if request.param.startswith("rabbitmq"):
        monkeypatch.setenv("FSDF_RABBITMQ_URL", request.getfixturevalue("rabbitmq_url"))
    if request.param.startswith("redis"):
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    monkeypatch.setenv("E2E_BROKER", request.param)
    monkeypatch.setenv("E2E_LEDGER", str(tmp_path / "ledger"))
    sys.modules.pop("e2e_tasks", None)
    yield importlib.import_module("e2e_tasks")
    del sys.modules["e2e_tasks"]


@pytest.fixture
def ledger(tmp_path):
    def lines():
        path = tmp_path / "ledger"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    return lines


def test_messages_run_once_retries_are_counted_and_requeues_are_not(tasks, ledger, tmp_path):
    tasks.run.push_many((n,) for n in range(500))
    tasks.retry.push_many((n,) for n in range(4))
    tasks.requeue.push(1, str(tmp_path / "seen"))
    handles = [task.consume() for task in (tasks.run, tasks.retry, tasks.requeue)]
    assert all(task.join(BOUND) for task in (tasks.run, tasks.retry, tasks.requeue))
    until(lambda: len([line for line in ledger() if line[0] == "requeue"]) == 2)
    runs = Counter(line[1] for line in ledger() if line[0] == "run")
    assert runs == Counter(map(str, range(500)))
    attempts = sorted((line[1], line[2]) for line in ledger() if line[0] == "retry")
    expected = [(n, a) for n in range(4) for a in range(min(n, 2) + 1)]
    assert attempts == sorted((str(n), str(a)) for n, a in expected)
    assert tasks.retry.size().dead == 1
    assert [line[2] for line in ledger() if line[0] == "requeue"] == ["0", "0"]
    for handle in handles:
        handle.stop()


def test_then_of_a_group_runs_once_with_what_its_members_returned(tasks):
    outer = tasks.grouped.push(100)
    for task in (tasks.grouped, tasks.member, tasks.then):
        task.consume()
    if tasks.BROKER == "memory":
        with pytest.raises(TaskFailed, match="in the memory of its parent"):
            outer.get(BOUND)
        result = tasks.member.push_group([(n,) for n in range(100)], tasks.then)
    else:
        result = tasks.then_result(outer.get(BOUND))
    assert result.get(BOUND) == [{"n": n} for n in range(100)]
    if tasks.BROKER == "sqlite":  # the same code for all, and it takes its time
        with pytest.raises(TaskFailed, match="its child process died"):
            tasks.member.push_group([(1,), (-1,)], tasks.then).get(3 * BOUND)


def test_every_attempt_gets_what_was_pushed(tasks, ledger):
    tasks.change.push(["a"], {"token": "t"})
    tasks.change.consume()
    assert tasks.change.join(BOUND)
    assert ledger() == [["change", "1", "1"]] * 3


def test_message_that_waits_for_a_child_to_start_ends_once(tasks):
    outcomes = []
    default_engine().listeners.add("run_ended", lambda job, outcome: outcomes.append(outcome))
    for task, count in ((tasks.run, 1), (tasks.fresh, 4)):  # a child for each
        for _ in range(3):  # a machine that stalls has them given back, too, but not every time
            outcomes.clear()
            handle = task.consume()
            task.push_many((n,) for n in range(count))
            assert task.join(BOUND)
            handle.stop()
            told = [type(outcome).__name__ for outcome in outcomes]
            if told == ["Succeeded"] * count:
                break
        assert told == ["Succeeded"] * count


def test_results_failures_and_coroutines_travel(tasks):
    results = tasks.rpc.push_many((n,) for n in (12, 13, 14))
    tasks.rpc.consume()
    tasks.coroutine.consume()
    assert results[0].get(BOUND) == {"n": 12, "text": "ж漢"}
    with pytest.raises(TaskFailed) as failed:
        results[1].get(BOUND)
    assert failed.value.kind == "builtins.ValueError"
    assert "in rpc" in failed.value.traceback
    with pytest.raises(TaskFailed, match="not me"):
        results[2].get(BOUND)
    assert tasks.coroutine.push(1).get(BOUND) == 2


def test_a_c_loop_is_killed_and_a_dying_child_loses_only_its_run(tasks, tmp_path):
    looping = [tasks.loop.push(n) for n in (0, 1)]
    dying = tasks.die.push(str(tmp_path / "marker"))
    tasks.loop.consume()
    tasks.die.consume()
    with pytest.raises(TaskFailed) as failed:
        looping[0].get(BOUND)
    assert failed.value.status == "timedout"
    assert looping[1].get(BOUND) == 1
    assert dying.get(BOUND) == "survived"


def test_messages_have_limits_of_their_own(tasks):
    soft = tasks.patient.publish({"n": 0}, soft_time_limit=0.2)
    hard = tasks.patient.publish({"n": 0}, function_timeout=0.3)
    plain = tasks.patient.push(1)
    tasks.patient.consume()
    assert soft.get(BOUND) == ["tidied", 0.2, 0]
    with pytest.raises(TaskFailed) as failed:
        hard.get(BOUND)
    assert failed.value.status == "timedout"
    assert plain.get(BOUND) == 1


def test_what_was_acknowledged_early_runs_once_whatever_ends_its_child(tasks, ledger, tmp_path):
    killed = tasks.early.push(str(tmp_path / "marker"))
    tasks.early.consume()
    with pytest.raises(TaskFailed) as failed:
        killed.get(BOUND)
    assert failed.value.status == "lost"
    assert tasks.early.push(str(tmp_path / "marker")).get(BOUND) is None
    assert tasks.early.join(BOUND)
    assert ledger() == [["early"]] * 2
    assert tasks.early.size().dead == 1


def test_a_stop_gives_back_what_was_acknowledged_and_handed_to_children(tasks, ledger):
    tasks.early_long.push_many((n,) for n in range(100))
    handle = tasks.early_long.consume()
    until(lambda: len([line for line in ledger() if int(line[1]) > 50]) == 2)
    handle.stop(timeout=0.1)
    ran = len(ledger())
    assert ran == 53
    size = tasks.early_long.size()
    assert (size.waiting, size.delayed, size.dead) == (100 - ran + 2, 0, 0)
    assert size.leased in (0, -1)  # which not every broker can tell


def test_a_run_pushes_on(tasks, ledger):
    tasks.first.push_many((n,) for n in range(50))
    tasks.first.consume()
    tasks.second.consume()
    until(lambda: len(ledger()) == 50)
    assert sorted(int(line[1]) for line in ledger()) == [2 * n for n in range(50)]
