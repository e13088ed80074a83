"""The short way of a run: who takes it, and that nobody who has something to do is left out."""

from __future__ import annotations

import gc
import threading

import pytest
from helpers import BOUND, until

from fsdf_compat import signals
from fsdf_compat._engine.run import Run
from fsdf_compat.app._trace.tracer import Tracer
from fsdf_compat.app.base import Celery
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.utils.dispatch.signal import Signal


@pytest.fixture
def app(quick_looks):
    made = Celery("short", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.worker_hijack_root_logger = False
    made.conf.worker_enable_remote_control = False  # it takes half a second to stop
    yield made
    made.close()


@pytest.fixture
def redis_app(redis_url):
    """One whose results the engine keeps."""
    made = Celery("short", broker="memory://", backend=redis_url, set_as_current=False)
    made.conf.worker_hijack_root_logger = False
    assert made.backend.native
    yield made
    made.close()


@pytest.fixture
def long_ways(monkeypatch):
    """The names of the tasks that did not go the short way."""
    names: list[str] = []
    steps = Tracer.steps

    def noted(self, it, request):
        names.append(self.name)
        return steps(self, it, request)

    monkeypatch.setattr(Tracer, "steps", noted)
    return names


def run(app, *calls):
    """Have a worker run the calls, one after the other; return their results."""
    done = threading.Semaphore(0)
    app.tasks.pop("short.last", None)  # of a run before

    @app.task(shared=False, name="short.last", ignore_result=True)
    def last():
        done.release()

    with start_worker(app, pool="solo", perform_ping_check=False):
        results = [call.delay() for call in calls]
        last.delay()
        assert done.acquire(timeout=BOUND)
    return results


class Resting:
    """A receiver that has something to do once `opened`."""

    def __init__(self):
        self.opened, self.heard = False, []

    def rests(self):
        return not self.opened

    def on_end(self, *, state, retval, **kwargs):
        self.heard.append((state, retval))


@pytest.mark.parametrize("told", [None, True, False])
def test_a_task_without_results_goes_the_short_way_and_one_that_ignores_them(app, long_ways, told):
    options = {} if told is None else {"ignore_result": told}
    task = app.task(lambda: 1, shared=False, name="short.task", **options)
    run(app, task.s())
    assert long_ways == []


def test_what_a_call_says_of_its_result_counts_on_the_short_way(app, long_ways):
    kept = app.task(lambda: 1, shared=False, name="short.kept")
    ignored = app.task(lambda: 2, shared=False, name="short.ignored", ignore_result=True)
    calls = kept.s().set(ignore_result=True), ignored.s().set(ignore_result=False)
    states = [result.state for result in run(app, *calls)]
    assert (states, long_ways) == (["PENDING", "SUCCESS"], [])


def test_a_receiver_that_rests_is_asked_again_when_the_run_has_ended(app, long_ways):
    receiver = Resting()

    @app.task(shared=False, name="short.opens")
    def opens():
        receiver.opened = True
        return 3

    idle = app.task(lambda: 1, shared=False, name="short.idle")
    signals.task_postrun.connect(receiver.on_end)
    try:
        run(app, idle.s(), opens.s())
    finally:
        signals.task_postrun.disconnect(receiver.on_end)
    assert receiver.heard[0] == ("SUCCESS", 3)
    assert long_ways == []


def test_who_is_told_of_starts_and_ends_finds_what_is_stored_on_the_short_way(redis_app, long_ways):
    told = []

    def start(*, task_id, **facts):
        told.append(("start", redis_app.AsyncResult(task_id).state))

    def end(*, task_id, state, retval, **facts):
        result = redis_app.AsyncResult(task_id)
        told.append((state, repr(retval), result.state, repr(result.result)))

    @redis_app.task(shared=False, name="short.task")
    def task(n):
        return 6 // n

    signals.task_prerun.connect(start)
    signals.task_postrun.connect(end)
    try:
        run(redis_app, task.s(2), task.s(0))
    finally:
        signals.task_prerun.disconnect(start)
        signals.task_postrun.disconnect(end)
    error = "ZeroDivisionError('integer division or modulo by zero')"
    assert told[:4] == [
        ("start", "PENDING"), ("SUCCESS", "3", "SUCCESS", "3"),
        ("start", "PENDING"), ("FAILURE", error, "FAILURE", error),
    ]  # fmt: skip
    assert long_ways == []


def test_a_receiver_is_heard_unless_its_object_rests():
    signal, receiver = Signal(), Resting()
    assert not signal.is_heard()
    signal.connect(receiver.on_end)
    assert not signal.is_heard()
    receiver.opened = True
    assert signal.is_heard()
    signal.disconnect(receiver.on_end)

    def function(**kwargs):
        pass

    signal.connect(function)
    assert signal.is_heard()
    del function
    gc.collect()
    assert not signal.is_heard()


def test_runs_leave_nothing_to_the_collector(app):
    kept = app.task(lambda: 1, shared=False, name="short.kept")
    ignored = app.task(lambda: 2, shared=False, name="short.ignored", ignore_result=True)
    gc.collect()
    gc.disable()
    try:
        run(app, *[task.s() for task in (kept, ignored) for _ in range(20)])
        until(lambda: sum(type(it) is Run for it in gc.get_objects()) <= 2)  # the last ones
    finally:
        gc.enable()


def meta_of(result):
    """What is stored of a run, less what differs from run to run."""
    result.get(timeout=BOUND)
    meta = dict(result._get_task_meta())
    assert meta.pop("task_id") == result.id
    assert meta.pop("date_done")
    return meta


@pytest.mark.parametrize("value", [None, 7, 2.5, 'a "text" \u20ac', {"a": [1, 2.5, {}]}, (1, "x")])
def test_what_is_stored_is_the_same_on_both_ways(redis_app, long_ways, value):
    task = redis_app.task(lambda: value, shared=False, name="short.task")
    [short] = run(redis_app, task.s())
    assert long_ways == []

    def receiver(**told):
        pass

    signals.task_success.connect(receiver)
    try:
        [long] = run(redis_app, task.s())
    finally:
        signals.task_success.disconnect(receiver)
    assert "short.task" in long_ways
    assert meta_of(short) == meta_of(long)
    assert list(short._get_task_meta()) == list(long._get_task_meta())
    raw = [
        redis_app.backend.get(redis_app.backend.get_key_for_task(result.id))
        for result in (short, long)
    ]
    assert len(raw[0]) == len(raw[1])  # the same but for id and date


def test_a_backend_that_makes_results_in_its_own_way_is_asked_on_the_short_way(
    redis_app, long_ways
):
    class Own(type(redis_app.backend)):
        def _get_result_meta(self, *args, **options):
            return {**super()._get_result_meta(*args, **options), "mine": 1}

    redis_app.backend.__class__ = Own
    task = redis_app.task(lambda: 7, shared=False, name="short.task")
    [result] = run(redis_app, task.s())
    assert (long_ways, redis_app.backend.native) == ([], True)
    assert (meta_of(result)["mine"], result.get()) == (1, 7)


def test_children_and_what_settings_add_are_stored_on_the_short_way(redis_app, long_ways):
    child = redis_app.task(lambda: 1, shared=False, name="short.child", ignore_result=True)
    parent = redis_app.task(lambda: child.delay() and 2, shared=False, name="short.parent")
    [result] = run(redis_app, parent.s())
    assert (len(meta_of(result)["children"]), result.get()) == (1, 2)
    redis_app.conf.result_extended = True
    [result] = run(redis_app, parent.s())
    assert meta_of(result)["name"] == "short.parent"
    assert "short.parent" not in long_ways
