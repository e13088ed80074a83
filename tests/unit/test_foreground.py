"""`Engine.run`: a thread that works until the consumers have stopped."""

from __future__ import annotations

import signal
import threading

import pytest
from helpers import BOUND, until

from fsdf_engine import ConfigurationError, default_engine, task_deco
from fsdf_engine.core import signals

LENT = {"broker_kind": "memory", "concurrent_mode": "inline"}


def run(engine, tasks=None):
    """Run in a thread; return it once its consumers are there."""
    thread = threading.Thread(target=engine.run, args=(tasks,), daemon=True)
    thread.start()
    until(engine.handles)
    return thread


def test_runs_are_in_the_thread_that_runs_until_the_consumers_stop():
    seen = []
    task = task_deco("q", **LENT)(lambda: seen.append(threading.current_thread()))
    task.push_many([()] * 20)
    thread = run(default_engine())
    assert task.join(BOUND)
    default_engine().stop()
    thread.join(BOUND)
    assert not thread.is_alive()
    assert seen == [thread] * 20


def test_first_of_several_pools_has_the_thread_and_all_are_waited_for():
    seen = {}

    def note(queue):
        seen[queue] = threading.current_thread()

    tasks = [task_deco(queue, **LENT)(note) for queue in ("one", "two")]
    for task in tasks:
        task.push(task.queue)
    thread = run(default_engine(), tasks)
    until(lambda: len(seen) == 2)
    first, second = default_engine().handles()
    first.stop()
    assert not second.join(0)
    assert thread.is_alive()
    second.stop()
    thread.join(BOUND)
    assert not thread.is_alive()
    assert seen["one"] is thread is not seen["two"]


def test_queues_of_a_shared_pool_have_the_thread_both():
    engine, seen = default_engine(), []
    pool = engine.new_pool("inline", 1)

    def note():
        seen.append(threading.current_thread())

    options = {"broker_kind": "memory", "specify_concurrent_pool": pool}
    tasks = [task_deco(queue, **options)(note) for queue in ("one", "two")]
    for task in tasks:
        task.push_many([()] * 10)
    thread = run(engine)
    for task in tasks:
        assert task.join(BOUND)
    engine.handles()[0].stop()
    tasks[1].push()
    until(lambda: len(seen) == 21)  # the other one goes on where it was
    engine.stop()
    thread.join(BOUND)
    assert seen == [thread] * 21


def test_main_thread_ends_by_a_signal_of_its_run_and_has_its_handlers_back():
    task = task_deco("q", **LENT)(lambda: signal.raise_signal(signal.SIGTERM))
    task.push()
    with pytest.raises(SystemExit) as end:
        default_engine().run()
    assert end.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is signals._handle  # as consumers leave it anywhere
    assert not sum(task.size())


def test_nothing_to_run_is_an_error():
    with pytest.raises(ConfigurationError, match="no task to consume"):
        default_engine().run()
