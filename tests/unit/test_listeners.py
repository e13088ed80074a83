"""Who listens hears of one message in order, and harms nobody."""

from __future__ import annotations

import importlib
import sys
import threading

import pytest
from helpers import BOUND, until

from fsdf_engine import Retry, SoftTimeLimit, current, default_engine, task_deco

EVENTS = ["message_received", "run_started", "run_retried", "run_ended"]


def heard(*events):
    """Return the list in which these events come together, as (event, id)."""
    told = []
    for event in events:

        def listener(job, outcome=None, event=event):
            told.append((event, job.id))

        default_engine().listeners.add(event, listener)
    return told


def work(n):
    if n and current.attempt < 2:
        raise Retry(delay=1.01 if current.attempt else 0.0)


async def awork(n):
    work(n)


@pytest.mark.parametrize("fn", [work, awork])
def test_events_of_a_message_come_in_order(fn):
    told = heard(*EVENTS)
    task = task_deco("heard", broker_kind="memory")(fn)
    ids = [task.push(n).task_id for n in (0, 1)]
    task.consume()
    assert task.join(BOUND)
    short, long = ([event for event, of in told if of == id] for id in ids)
    received, started, retried, ended = EVENTS
    assert short == [received, started, ended]
    again = [received, started, ended]
    assert long == [received, started, retried, retried, ended, *again]


def test_a_soft_limit_that_passes_is_told():
    told, passed = [], threading.Event()

    @task_deco("soft", broker_kind="memory", soft_time_limit=0.05, function_timeout=BOUND)
    def wait():
        try:
            passed.wait(BOUND)
        except SoftTimeLimit:
            passed.set()

    default_engine().listeners.add("soft_limit_passed", lambda **facts: told.append(facts))
    id = wait.push().task_id
    wait.consume()
    until(lambda: told)
    assert (told[0]["job"].id, told[0]["seconds"]) == (id, 0.05)
    passed.set()


def test_a_soft_limit_that_passes_in_a_child_is_told_once():
    sys.modules.pop("listened_tasks", None)
    task, told = importlib.import_module("listened_tasks").warned, heard("run_ended")
    passed = []
    default_engine().listeners.add("soft_limit_passed", lambda **facts: passed.append(facts))
    id = task.push().task_id
    task.consume()
    until(lambda: told == [("run_ended", id)])
    assert [(facts["job"].id, facts["seconds"]) for facts in passed] == [(id, 0.2)]


def test_events_of_a_message_in_a_child_come_in_order():
    """The start of 2 is told while it runs, and before its child is killed."""
    sys.modules.pop("listened_tasks", None)
    task, told = importlib.import_module("listened_tasks").work, heard(*EVENTS)
    ids = [task.push(n).task_id for n in (0, 1, 2)]
    task.consume()
    until(lambda: ("run_started", ids[2]) in told)
    assert ("run_ended", ids[2]) not in told
    until(lambda: ("run_ended", ids[2]) in told)
    received, started, retried, ended = EVENTS
    heard_of = [[event for event, of in told if of == id] for id in ids]
    assert heard_of[0] == heard_of[2] == [received, started, ended]
    assert heard_of[1] == [received, started, retried, ended]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("event", EVENTS)
def test_a_listener_that_raises_harms_nobody(event, kind):
    def listener(**facts):
        raise kind

    default_engine().listeners.add(event, listener)
    told = heard("run_ended")
    task = task_deco("heard", broker_kind="memory")(work)
    for n in (0, 1, 0):
        task.push(n)
    task.consume()
    assert task.join(BOUND)
    until(lambda: len(told) >= 4)
    assert len(told) == 4
    assert task.size() == (0, 0, 0, 0)


def test_a_listener_that_hangs_in_a_run_is_interrupted_by_a_stop():
    go, hangs = threading.Event(), threading.Event()

    def listener(job):
        hangs.set()
        while not go.wait(0.002):
            pass

    default_engine().listeners.add("run_started", listener)
    task = task_deco("heard", broker_kind="memory")(work)
    task.push(0)
    handle = task.consume()
    assert hangs.wait(BOUND)
    handle.stop(timeout=0.1)
    assert task.size() == (1, 0, 0, 0)


def test_an_unknown_event_is_refused():
    with pytest.raises(ValueError, match="unknown event 'run_begun'; there are consumer_started"):
        default_engine().listeners.add("run_begun", print)
