"""Messages of a layer's own wire form, beside the engine's: run, end and go back in every mode."""

from __future__ import annotations

import importlib
import json
import sys
import time

import pytest
import toy_wire
from conformance.end_to_end import BROKERS
from helpers import BOUND, until

from fsdf_engine import TaskFailed, default_engine
from fsdf_engine.contracts import Outgoing

MODES = ["threads", "asyncio", "inline", "processes"]


@pytest.fixture
def load(request, monkeypatch):
    """Return what imports the tasks for a mode, a broker and a way to acknowledge."""

    def load(mode, broker="memory", ack="late"):
        if broker.startswith("redis"):
            monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
        if broker.startswith("rabbitmq"):
            monkeypatch.setenv("FSDF_RABBITMQ_URL", request.getfixturevalue("rabbitmq_url"))
        for key, value in (("MODE", mode), ("BROKER", broker), ("ACK", ack)):
            monkeypatch.setenv(f"WIRE_{key}", value)
        return importlib.import_module("wire_tasks")

    yield load
    toy_wire.Troubled.stay.set()
    default_engine().close()
    toy_wire.Troubled.stay.clear()
    sys.modules.pop("wire_tasks", None)


@pytest.fixture(params=MODES)
def tasks(request, load):
    return load(request.param)


def send(tasks, *args, priority=0, **control):
    """Publish a toy as another program would; return how its result is waited for."""
    control = {"task_id": f"toy-{len(args)}-{time.monotonic_ns()}", "task": "work", **control}
    broker = default_engine().broker_of(tasks.work.options)
    broker.publish([toy_wire.message(args, {}, control, priority=priority)])
    return default_engine().result(control["task_id"], tasks.work.options)


def works(tasks):
    """Check that both forms run."""
    toy, flat = send(tasks, 3, 4), tasks.work.push(5)
    assert (toy.get(BOUND), flat.get(BOUND)) == ([3, 4], [5, 0])


def ends(tasks, result, status, reason):
    """Check how a message ends, and that others do not mind."""
    tasks.work.consume()
    with pytest.raises(TaskFailed, match=reason) as failed:
        result.get(3 * BOUND)  # children may have to start, one after the other
    assert failed.value.status == status
    works(tasks)


def dies(tasks, result, status, reason):
    ends(tasks, result, status, reason)
    until(lambda: tasks.work.size() == (0, 0, 0, 1))
    [letter] = tasks.work.dead_letters()
    assert reason in letter.reason
    return letter


def trouble(kind):
    return {"headers": {"trouble": kind}}


def test_two_forms_run_side_by_side(tasks):
    tasks.work.consume()
    works(tasks)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("raise", "no arguments here"), ("exit", "SystemExit: 3"), ("nonsense", "cannot unpack")],
)
def test_arguments_that_cannot_be_decoded_end_their_run_only(tasks, kind, reason):
    letter = dies(tasks, send(tasks, 1, **trouble(kind)), "invalid", reason)
    assert json.loads(letter.body)[2] == [1]


@pytest.mark.parametrize("mode", ["threads", "inline", "processes"])  # a loop cannot be interrupted
def test_arguments_that_hang_time_out(load, mode):
    tasks = load(mode)
    dies(tasks, send(tasks, 1, task="quick", **trouble("hang")), "timedout", "limit of 0.3 s")


def test_arguments_that_kill_their_child_are_given_up(load):
    tasks = load("processes")
    dies(tasks, send(tasks, 1, **trouble("die")), "lost", "exit code 3")


def test_expired_is_told_by_the_envelope_alone(tasks):
    ends(tasks, send(tasks, 1, expires=5.0, **trouble("die")), "expired", "expired at 1970")
    until(lambda: tasks.work.size() == (0, 0, 0, 0))


def test_an_unknown_task_is_told_by_the_envelope_alone(tasks):
    dies(tasks, send(tasks, 1, task="other", **trouble("die")), "unknown", "'other'")


def test_lost_is_told_by_the_envelope_alone(tasks):
    result = send(tasks, 1, **trouble("die"))
    killed = default_engine().broker("memory").subscribe("toys", lease=0.01)
    for _ in range(6):  # workers that died with it
        until(lambda: killed.fetch(1, 1 << 20))
    until(lambda: tasks.work.size().waiting)
    dies(tasks, result, "lost", "lease was lost 6 times")


def test_an_envelope_that_cannot_be_read_is_a_dead_letter(tasks):
    default_engine().broker("memory").publish([Outgoing("toys", "x", b'["toy",1,2,3]')])
    tasks.work.consume()
    works(tasks)
    until(lambda: tasks.work.size() == (0, 0, 0, 1))
    assert "a toy is a mark" in tasks.work.dead_letters()[0].reason


def test_a_replay_is_written_in_its_own_form(tasks):
    result = send(tasks, 1, **trouble("raise"))
    dies(tasks, result, "invalid", "no arguments here")
    assert tasks.work.replay() == 1
    until(lambda: tasks.work.size() == (0, 0, 0, 1))
    mark, told, args, _ = json.loads(tasks.work.dead_letters()[0].body)
    assert (mark, args, told["lives"]) == ("toy", [1], 1)


@pytest.mark.parametrize("mode", ["threads", "processes"])
@pytest.mark.parametrize("ack", ["late", "early"])
@pytest.mark.parametrize("broker", BROKERS)
def test_retries_keep_their_form_whatever_way_they_go(load, broker, ack, mode):
    tasks = load(mode, broker, ack)
    toys = {n: send(tasks, n, task="changing", headers={"by": n}) for n in range(4)}
    flat = {n: tasks.changing.send((n,), {}, headers={"by": n}) for n in range(4)}
    tasks.work.consume()
    for results in (toys, flat):
        # without delay in place; with delay by a release, or anew; with changes always anew
        expected = {0: (0, 0), 1: (0, 1), 2: (2, 2), 3: (0, 3)}
        for n, (more, attempt) in expected.items():
            assert results[n].get(BOUND) == [n, more, attempt, {"by": n}]
    assert tasks.work.join(BOUND)
    assert max(tasks.work.size()) == 0
