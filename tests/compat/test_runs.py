"""How runs go and how messages end: the order of steps, hooks, signals, results, log lines."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time

import pytest
from helpers import BOUND, until

from fsdf_compat import signals
from fsdf_compat.app.base import Celery
from fsdf_compat.app.task import Task
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.exceptions import (
    Ignore,
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)
from fsdf_compat.result import allow_join_result
from fsdf_compat.worker import state
from fsdf_engine.contracts import Outgoing


class Alone(Celery):
    """An app whose tasks are its own only: those of other tests are called the same."""

    def task(self, *args, **options):
        return super().task(*args, **{"shared": False, **options})


@pytest.fixture
def app(quick_looks):
    made = Alone("runs", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.worker_hijack_root_logger = False
    made.conf.worker_enable_remote_control = False  # it takes half a second to stop
    yield made
    made.close()
    state.reset_state()


@pytest.fixture
def heard():
    """What receivers were told, in order; receivers are gone afterwards."""
    told, connected = [], []

    def hear(*names, say=None):
        for name in names:

            def receive(*, signal, sender=None, name=name, **facts):
                told.append((name, say(name, sender, facts)) if say else name)

            getattr(signals, name).connect(receive, weak=False)
            connected.append((getattr(signals, name), receive))
        return told

    yield hear
    for signal, receive in connected:
        signal.disconnect(receive)


def works(app, pool="threads", **kwargs):
    return start_worker(app, pool=pool, concurrency=2, perform_ping_check=False, **kwargs)


def put(app, body, queue="celery.flat", id="x"):
    """Publish what another program might have."""
    app.amqp.publisher(None).publish([Outgoing(queue, id, body)])


def dead(app, queue="celery.flat"):
    return app.engine.broker("memory", "").dead_letters(queue)


class Told(Task):
    """Notes the calls of its hooks, and whether the result is there by then."""

    abstract = True
    seen: list

    def _note(self, hook, id):
        self.seen.append((hook, self.AsyncResult(id).state))

    def before_start(self, task_id, args, kwargs):
        self._note("before_start", task_id)

    def on_success(self, retval, task_id, args, kwargs):
        self._note("on_success", task_id)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.seen.append(("on_failure", type(exc).__name__))

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.seen.append(("on_retry", repr(exc)))

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self._note(f"after_return {status}", task_id)


@pytest.mark.parametrize("late", [False, True])
def test_hooks_and_receivers_of_a_success_find_its_result(app, heard, late):
    seen = Told.seen = []

    def say(name, sender, facts):
        seen.append((name, sender.AsyncResult(sender.request.id).state))

    heard("task_prerun", "task_success", "task_postrun", say=say)

    @app.task(base=Told, acks_late=late)
    def add(x, y):
        seen.append("run")
        return x + y

    with works(app):
        assert add.delay(1, y=2).get(timeout=BOUND) == 3
        until(lambda: len(seen) == 7)
    assert seen == [
        ("task_prerun", "PENDING"), ("before_start", "PENDING"), "run", ("on_success", "SUCCESS"),
        ("task_success", "SUCCESS"), ("after_return SUCCESS", "SUCCESS"),
        ("task_postrun", "SUCCESS"),
    ]  # fmt: skip


def test_hooks_and_receivers_of_failures_and_retries(app, heard):
    seen = Told.seen = []
    told = heard("task_failure", "task_retry", "task_success", "task_postrun")

    @app.task(base=Told, bind=True, max_retries=1)
    def fails(self):
        try:
            raise KeyError("no")
        except KeyError as exc:
            raise self.retry(exc=exc, countdown=0)

    with works(app):
        with pytest.raises(KeyError):
            fails.delay().get(timeout=BOUND)
        until(lambda: len(told) == 4)
    assert [name for name, _ in seen] == [
        "before_start", "on_retry", "before_start", "on_failure", "after_return FAILURE",
    ]  # fmt: skip
    assert told == ["task_retry", "task_postrun", "task_failure", "task_postrun"]


def test_what_hooks_raise_after_the_end_changes_nothing(app, caplog):
    class Bad(Task):
        def on_success(self, *args):
            raise RuntimeError("hook")

    @app.task(base=Bad)
    def add(x, y):
        return x + y

    with works(app):
        assert add.delay(1, 2).get(timeout=BOUND) == 3
        until(lambda: "on_success handler raised" in caplog.text)


def test_a_request_shows_the_call_as_it_was_written(app):
    @app.task(bind=True)
    def ask(self, x, y=2, *more, **named):
        request = self.request
        self.request.mine = 1
        return [request.args, request.kwargs, request.delivery_info, request.mine,
                request.get("trace"), request.headers, request.timelimit,
                request.root_id == request.id, request.called_directly]  # fmt: skip

    with works(app):
        sent = ask.apply_async((1,), {"z": 3}, headers={"trace": "t"}, time_limit=30, priority=3)
        args, kwargs, info, *rest = sent.get(timeout=BOUND)
    assert (args, kwargs) == ([1], {"z": 3})
    assert info["routing_key"] == "celery"
    assert (info["priority"], info["redelivered"]) == (3, False)
    assert rest == [1, "t", {"trace": "t"}, [30, None], True, False]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_coroutine_functions_run_beside_others_each_with_its_own_request(app, pool):
    mine, begun = contextvars.ContextVar("mine", default=None), []

    @app.task(bind=True)
    async def nap(self, n):
        assert mine.get() is None
        mine.set(n)
        begun.append(n)
        while len(begun) < 2:  # it ends beside another one only
            await asyncio.sleep(0.001)
        return [n, mine.get(), self.request.id, app.current_task.request.args]

    @app.task
    def plain(x):
        return x

    with works(app, pool), allow_join_result():
        sent = [nap.delay(n) for n in range(40)]
        assert plain.delay(1).get(timeout=BOUND) == 1
        for n, each in enumerate(sent):
            assert each.get(timeout=BOUND) == [n, n, each.id, [n]]


def test_a_coroutine_function_fails_retries_and_is_told_of_its_limit(app):
    @app.task(bind=True)
    async def flaky(self):
        await asyncio.sleep(0)
        if not self.request.retries:
            raise self.retry(countdown=0)
        raise KeyError("no")

    @app.task(soft_time_limit=0.05)
    async def long():
        try:
            await asyncio.sleep(BOUND)
        except SoftTimeLimitExceeded:
            return "told"

    with works(app):
        with pytest.raises(KeyError):
            flaky.delay().get(timeout=BOUND)
        assert long.delay().get(timeout=BOUND) == "told"


def test_links_leave_with_the_end_of_their_run(app):
    @app.task
    def add(x, y):
        return x + y

    @app.task
    def fail():
        raise KeyError("no")

    got = []

    @app.task
    def note(x):
        got.append(x)

    with works(app):
        add.apply_async((1, 2), link=[note.s(), note.s()])
        fail.apply_async(link_error=note.si("errback"))
        until(lambda: sorted(map(str, got)) == ["3", "3", "errback"])
        assert (add.s(1, 2) | add.s(3) | add.s(4)).delay().get(timeout=BOUND) == 10


def test_limits_are_told_in_the_code_and_end_the_run(app, heard):
    told = heard("task_failure", say=lambda name, sender, facts: type(facts["exception"]))
    go, seen = threading.Event(), []

    class Limited(Task):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            seen.append(exc)

    @app.task(soft_time_limit=0.05)
    def soft():
        try:
            for _ in range(10_000):
                go.wait(0.001)
        except SoftTimeLimitExceeded as error:
            return repr(error)

    @app.task(base=Limited, time_limit=0.05)
    def hard():
        go.wait(BOUND)

    with works(app):
        assert "SoftTimeLimitExceeded" in soft.delay().get(timeout=BOUND)
        with pytest.raises(TimeLimitExceeded):
            hard.delay().get(timeout=BOUND)
        until(lambda: told and seen)
        go.set()
    assert told == [("task_failure", TimeLimitExceeded)]


def test_what_expires_or_is_revoked_does_not_run(app, heard):
    said = lambda name, sender, facts: (facts["expired"], facts["terminated"])  # noqa: E731
    told, ran = heard("task_revoked", say=said), []

    @app.task
    def note(x):
        ran.append(x)

    expired, revoked = note.apply_async((1,), expires=-1), note.delay(2)
    state.revoked.add(revoked.id)
    with works(app):
        for each, why in ((expired, "expired"), (revoked, "revoked")):
            with pytest.raises(TaskRevokedError, match=why):
                each.get(timeout=BOUND)
            assert each.state == "REVOKED"
        until(lambda: len(told) == 2)
    assert ran == []
    assert sorted(flags for _, flags in told) == [(False, False), (True, False)]


def test_what_has_a_revoked_stamp_does_not_run(app):
    @app.task
    def add(x, y):
        return x + y

    def stamped(value):
        signature = add.si(1, 2)
        signature.stamp(tenant=value)
        return signature.apply_async()

    with works(app):
        state.revoked_stamps["tenant"] = ["a", "b"]
        with pytest.raises(TaskRevokedError):
            stamped(["x", "b"]).get(timeout=BOUND)
        assert stamped("c").get(timeout=BOUND) == 3
        assert add.delay(1, 2).get(timeout=BOUND) == 3


def test_unknown_names_and_bad_bodies_are_told_and_the_next_message_runs(app, heard, caplog):
    told = heard("task_unknown", "task_rejected")
    app.conf.import_unknown_tasks = False

    @app.task
    def add(x, y):
        return x + y

    with works(app):
        sent = app.send_task("no.such", (1,))
        put(app, b"[1, 2]", id="bad")
        put(app, b'{"x": 1, "extra": {"task": f"{__name__}.add", "positional": 7}}', id="odd")
        with pytest.raises(NotRegistered):
            sent.get(timeout=BOUND)
        assert add.delay(1, 2).get(timeout=BOUND) == 3
        until(lambda: len(told) >= 3 and len(dead(app)) == 3)
    assert "Received unregistered task of type 'no.such'" in caplog.text


def test_a_bare_message_is_the_only_tasks(app):
    got = []

    @app.task
    def note(x, y=2):
        got.append((x, y))

    with works(app):
        put(app, b'{"x": 1}')
        until(lambda: got == [(1, 2)])


@pytest.mark.parametrize("late", [False, True])
def test_what_a_task_rejects_or_ignores(app, late):
    runs = []

    @app.task(bind=True, acks_late=late)
    def reject(self, requeue):
        runs.append(self.request.delivery_info["redelivered"])
        if len(runs) == 1:
            raise Reject("no", requeue=requeue)

    @app.task
    def ignore():
        raise Ignore()

    with works(app):
        sent = reject.delay(True)
        ignored = ignore.delay()
        if late:
            until(lambda: runs == [False, True])
            runs.clear()
            with pytest.raises(Reject):
                reject.delay(False).get(timeout=BOUND)
            until(lambda: [letter.reason for letter in dead(app)] == ["rejected: no"])
        else:
            until(lambda: runs == [False])
            assert dead(app) == []
        assert ignored.state == "PENDING"
        assert sent.state in ("PENDING", "SUCCESS")


def test_rates_hold_for_each_task_of_a_shared_queue(app):
    starts = []

    @app.task(rate_limit="20/s")
    def slow():
        starts.append(time.monotonic())

    @app.task
    def quick(x):
        return x

    with works(app):
        for _ in range(6):
            slow.delay()
        assert [quick.delay(n).get(timeout=BOUND) for n in range(10)] == list(range(10))
        until(lambda: len(starts) == 6)
    assert starts[-1] - starts[0] >= 0.2


def test_log_lines_say_what_came_and_how_it_ended(app, caplog):
    caplog.set_level(logging.INFO, logger="celery")

    @app.task(bind=True, max_retries=1)
    def flaky(self, x):
        if not self.request.retries:
            raise self.retry(countdown=0)
        return x

    @app.task(throws=(KeyError,))
    def fails(fine):
        raise KeyError("no") if fine else ValueError("no")

    with works(app, loglevel="INFO"):
        sent = flaky.delay("y")
        sent.get(timeout=BOUND)
        for fine in (True, False):
            with pytest.raises(LookupError if fine else ValueError):
                fails.delay(fine).get(timeout=BOUND)
        until(lambda: "raised unexpected" in caplog.text)
    lines = [
        (r.name, r.levelname, r.getMessage()) for r in caplog.records if sent.id in r.getMessage()
    ]
    at = f"Task {flaky.name}[{sent.id}]"
    assert lines[0] == ("celery.worker.strategy", "INFO", f"{at} received")
    assert lines[1] == ("celery.app.trace", "INFO", f"{at} retry: Retry in 0s")
    assert lines[3][2].startswith(f"{at} succeeded in ")
    assert lines[3][2].endswith("s: 'y'")
    received = next(r for r in caplog.records if r.name == "celery.worker.strategy")
    assert (received.data["args"], received.data["kwargs"]) == ("['y']", "{}")
    raised = [r for r in caplog.records if "raised" in r.getMessage()]
    assert [(r.levelname, bool(r.exc_info)) for r in raised] == [("INFO", False), ("ERROR", True)]


def test_a_tracer_that_others_build_runs_the_task(app, monkeypatch):
    from fsdf_compat.app import trace

    seen, build = [], trace.build_tracer

    def wrapped(name, task, *args, **kwargs):
        inner = build(name, task, *args, **kwargs)

        def tracer(*call):
            seen.append((name, call[1], call[2], call[3]["id"]))
            return inner(*call)

        return tracer

    monkeypatch.setattr(trace, "build_tracer", wrapped)

    @app.task
    def add(x, y):
        return x + y

    with works(app):
        sent = add.delay(1, y=2)
        assert sent.get(timeout=BOUND) == 3
    assert seen == [(add.name, [1], {"y": 2}, sent.id)]
