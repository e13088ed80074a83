"""A user's project over real brokers: what is sent is run by a worker of its own process."""

from __future__ import annotations

import datetime
import json
import os
import signal
import time

import pytest
from helpers import BOUND, until

from fsdf_compat.exceptions import (
    MaxRetriesExceededError,
    NotRegistered,
    Reject,
    TaskRevokedError,
    TimeoutError,
)

ADD = """
@app.task
def add(x, y=10):
    return x + y
"""


def test_delay_returns_what_the_task_returns(project):
    proj = project.write(ADD)
    sent = proj.add.delay(1, y=2)
    assert sent.state == "PENDING"
    assert not sent.ready()
    project.worker()
    assert sent.get(timeout=BOUND) == 3
    assert sent.state == sent.status == "SUCCESS"
    assert sent.successful()
    assert sent.result == 3
    assert proj.app.AsyncResult(sent.id).get(timeout=BOUND) == 3


def test_get_of_a_task_that_nobody_runs_times_out(project):
    proj = project.write(ADD)
    with pytest.raises(TimeoutError):
        proj.add.delay(1).get(timeout=0.01)


def test_send_task_needs_only_the_name(project):
    proj = project.write(ADD)
    project.worker()
    said = project.elsewhere("""
        send = app.send_task
        sent = [send("proj.add", (1, 2)), send("proj.add", (1,), {"y": 3}),
                send("proj.add", kwargs={"x": 1})]
        said = [each.get(timeout=20) for each in sent]
    """)
    assert said == [3, 4, 11]
    assert proj.app.send_task("proj.add", [5], task_id="mine").id == "mine"
    assert proj.app.AsyncResult("mine").get(timeout=BOUND) == 15


def test_retry_runs_the_task_again(project):
    proj = project.write("""
    @app.task(bind=True, max_retries=2)
    def flaky(self, countdown):
        note(f"{self.request.retries} {self.request.id}")
        if self.request.retries < 2:
            raise self.retry(countdown=countdown)
        return self.request.retries
    """)
    project.worker()
    sent = proj.flaky.delay(0)
    assert sent.get(timeout=BOUND) == 2
    assert project.notes() == [f"{n} {sent.id}" for n in range(3)]


@pytest.mark.parametrize("late", [False, True])
def test_retry_with_countdown_waits_in_the_broker(project, late):
    proj = project.write(f"""
    @app.task(bind=True, acks_late={late})
    def flaky(self):
        note(str(time.time()))
        if not self.request.retries:
            self.retry(countdown=1.1)
        return self.request.retries
    """)
    worker = project.worker()
    sent = proj.flaky.delay()
    worker.says("] retry")
    until(lambda: sent.state == "RETRY")
    assert sent.get(timeout=BOUND) == 1
    first, second = map(float, project.notes())
    assert second - first >= 1.1


@pytest.mark.parametrize("late", [False, True])
def test_retry_may_change_arguments_queue_and_options(project, late):
    proj = project.write(f"""
    @app.task(bind=True, acks_late={late}, soft_time_limit=30)
    def step(self, x, y=2, *more, **named):
        r = self.request
        note(json.dumps([x, y, more, named, r.delivery_info["routing_key"], r.headers,
                         r.expires is not None, r.timelimit, r.id]))
        change = [
            dict(args=[5]),
            dict(kwargs=dict(y=6, z=1), queue="other"),
            dict(args=[7, 8, 9], kwargs={{}}, headers=dict(a=1), expires=60, time_limit=40),
            dict(countdown=0),
        ]
        if r.retries < 4:
            self.retry(max_retries=4, **dict(dict(countdown=0.01), **change[r.retries]))
        return r.retries
    """)
    project.worker("-Q", "celery,other")
    sent = proj.step.delay(1)
    assert sent.get(timeout=BOUND) == 4
    *told, last = [json.loads(line) for line in project.notes()]
    rest = [None, False, [None, 30], sent.id]
    assert told == [
        [1, 2, [], {}, "celery", *rest],
        [5, 2, [], {}, "celery", *rest],
        [5, 6, [], {"z": 1}, "other", *rest],
        [7, 8, [9], {}, "other", {"a": 1}, True, [40, 30], sent.id],
    ]
    assert last == told[-1]


def test_retry_with_arguments_that_do_not_fit_fails_the_task(project):
    proj = project.write("""
    @app.task(bind=True)
    def step(self, x):
        self.retry(kwargs={"wrong": 1}, countdown=0)
    """)
    project.worker()
    with pytest.raises(Reject, match="wrong"):
        proj.step.delay(1).get(timeout=BOUND)


@pytest.mark.parametrize("kept", [True, False])
def test_revoked_message_is_not_run(project, kept):
    proj = project.write(f"""
    @app.task(ignore_result={not kept})
    def mark(text):
        note(text)
    """)
    waiting, delayed = proj.mark.delay("no"), proj.mark.apply_async(("no",), countdown=0.5)
    several = [proj.mark.delay("no") for _ in range(2)]
    waiting.revoke()
    proj.app.AsyncResult(delayed.id).revoke()
    proj.app.control.revoke([each.id for each in several])
    proj.mark.delay("yes")
    project.worker()
    project.noted("yes")
    until(lambda: sum(project.size(proj.app)) == 0)
    assert project.notes() == ["yes"]
    if kept:
        for each in (waiting, delayed, *several):
            with pytest.raises(TaskRevokedError):
                each.get(timeout=BOUND)
            assert each.state == "REVOKED"


def test_priorities_have_celerys_order(project):
    proj = project.write("""
    @app.task
    def mark(n):
        note(str(n))

    @app.task(priority=4)
    def fourth():
        note("4")
    """)
    numbers = [5, 9, 1, 7]
    for n in numbers:
        proj.mark.apply_async((n,), priority=n)
    fourth = proj.fourth.delay()
    plain = proj.mark.delay(0)
    project.worker("-c", "1", "-P", "solo")
    expected = {"redis": ["1", "0", "5", "4", "7", "9"], "sqlite": ["9", "7", "5", "4", "1", "0"]}
    project.noted(*expected[project.url.partition(":")[0]])
    assert fourth.get(timeout=BOUND) is plain.get(timeout=BOUND) is None


def test_last_retry_raises_the_given_exception_or_says_so(project):
    proj = project.write("""
    @app.task(bind=True, max_retries=1)
    def given(self):
        self.retry(exc=ZeroDivisionError("too often"), countdown=0)

    @app.task(bind=True, max_retries=1)
    def handled(self):
        try:
            {}["key"]
        except KeyError:
            self.retry(countdown=0)

    @app.task(bind=True)
    def bare(self):
        self.retry(countdown=0, max_retries=0)
    """)
    project.worker()
    with pytest.raises(ZeroDivisionError, match="too often"):
        proj.given.delay().get(timeout=BOUND)
    with pytest.raises(MaxRetriesExceededError):
        proj.handled.delay().get(timeout=BOUND)
    with pytest.raises(MaxRetriesExceededError):
        proj.bare.delay().get(timeout=BOUND)


def test_autoretry_retries_what_it_names_and_nothing_else(project):
    proj = project.write("""
    @app.task(bind=True, autoretry_for=(LookupError,), dont_autoretry_for=(IndexError,),
              retry_kwargs={"max_retries": 2, "countdown": 0})
    def picky(self, kind):
        note(kind)
        raise getattr(__import__("builtins"), kind)("no")
    """)
    project.worker()
    for kind, times in (("KeyError", 3), ("IndexError", 1), ("ValueError", 1)):
        before = len(project.notes())
        with pytest.raises(Exception, match="no") as caught:
            proj.picky.delay(kind).get(timeout=BOUND)
        assert type(caught.value).__name__ == kind
        assert project.notes()[before:] == [kind] * times


def test_exception_and_traceback_travel(project):
    proj = project.write("""
    class OwnError(Exception):
        pass

    class Hidden(Exception):
        __module__ = "not_imported_by_the_test"

    @app.task
    def fail(hidden):
        raise (Hidden if hidden else OwnError)("broken", 7)
    """)
    project.worker()
    sent = proj.fail.delay(False)
    with pytest.raises(proj.OwnError) as caught:
        sent.get(timeout=BOUND)
    assert caught.value.args == ("broken", 7)
    assert "in fail" in sent.traceback
    assert sent.state == "FAILURE"
    assert sent.failed()
    assert "OwnError" in sent.traceback
    assert isinstance(sent.result, proj.OwnError)
    hidden = proj.fail.delay(True).get(timeout=BOUND, propagate=False)
    assert type(hidden).__name__ == "UnpickleableExceptionWrapper"
    assert "Hidden('broken', 7)" in repr(hidden.args)


def test_unknown_task_and_wrong_arguments_go_to_dead_letters_and_the_worker_lives(project):
    proj = project.write(ADD)
    project.worker()
    with pytest.raises(NotRegistered, match="proj.nope"):
        proj.app.send_task("proj.nope", (1,)).get(timeout=BOUND)
    said = project.elsewhere("""
        try:
            app.send_task("proj.add", kwargs={"z": 1}).get(timeout=20)
        except TypeError as error:
            said = str(error)
    """)
    assert "'z'" in said
    assert proj.add.delay(1).get(timeout=BOUND) == 11
    until(lambda: project.size(proj.app).dead == 1)


def test_expired_message_is_revoked_and_not_run(project):
    proj = project.write("""
    @app.task
    def mark():
        note("ran")
    """)
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=1)
    sent = proj.mark.apply_async(expires=past)
    kept = proj.mark.apply_async(expires=60)
    project.worker()
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=BOUND)
    assert sent.state == "REVOKED"
    assert kept.get(timeout=BOUND) is None
    assert project.notes() == ["ran"]


def test_countdown_and_eta_are_waited_for(project):
    proj = project.write("""
    @app.task
    def now():
        return time.time()
    """)
    project.worker()
    begin = time.time()
    eta = datetime.datetime.fromtimestamp(begin + 0.5, datetime.timezone.utc)
    by_eta = proj.now.apply_async(eta=eta)
    by_countdown = proj.now.apply_async(countdown=0.3)
    at_once = proj.now.delay()
    assert at_once.get(timeout=BOUND) < by_countdown.get(timeout=BOUND)
    assert by_countdown.get() >= begin + 0.3
    assert by_eta.get(timeout=BOUND) >= begin + 0.499  # SQLite's clock has milliseconds


def test_bound_task_knows_its_request(project):
    proj = project.write("""
    @app.task(bind=True, name="named", priority=3)
    def about(self, x, *, y):
        r = self.request
        return [self.name, r.id, r.kwargs, r.retries, r.called_directly, r.hostname,
                r.delivery_info["routing_key"], r.headers, r.get("nothing", 5)]
    """)
    project.worker("-n", "w1@%h")
    sent = proj.about.apply_async((1,), {"y": 2}, task_id="some-id", headers={"tenant": "t1"})
    name, id, kwargs, retries, directly, hostname, queue, headers, missing = sent.get(BOUND)
    assert (name, id, kwargs, retries) == ("named", "some-id", {"y": 2}, 0)
    assert directly is False
    assert hostname.startswith("w1@")
    assert (queue, headers, missing) == ("celery", {"tenant": "t1"}, 5)


def test_ignore_and_reject_end_the_message(project):
    proj = project.write("""
    @app.task
    def ignore():
        raise Ignore()

    @app.task(acks_late=True)
    def reject():
        raise Reject("not for us")

    @app.task(bind=True, acks_late=True)
    def reject_once(self):
        note("run")
        if (HERE / "notes").read_text().count("run") == 1:
            raise Reject("again", requeue=True)
    """)
    project.worker()
    ignored = proj.ignore.delay()
    with pytest.raises(Reject, match="not for us"):
        proj.reject.delay().get(timeout=BOUND)
    assert proj.reject_once.delay().get(timeout=BOUND) is None
    assert project.notes() == ["run", "run"]
    assert ignored.state == "PENDING"
    size = project.size(proj.app)
    assert (size.waiting, size.dead) == (0, 1)


def test_ignored_result_is_not_stored(project):
    proj = project.write("""
    @app.task(ignore_result=True)
    def quiet():
        note("ran")
        return 1
    """)
    project.worker()
    sent = proj.quiet.delay()
    assert sent.get() is None
    project.noted("ran")
    assert proj.app.AsyncResult(sent.id).state == "PENDING"


def test_get_inside_a_task_is_refused(project):
    proj = project.write("""
    @app.task
    def inner():
        return 1

    @app.task
    def outer(insist):
        return inner.delay().get(timeout=20, disable_sync_subtasks=not insist)
    """)
    project.worker()
    with pytest.raises(RuntimeError, match="(?i)never call"):
        proj.outer.delay(False).get(timeout=BOUND)
    assert proj.outer.delay(True).get(timeout=BOUND) == 1


def test_forgotten_result_is_gone(project):
    proj = project.write(ADD)
    project.worker()
    sent = proj.add.delay(1)
    sent.get(timeout=BOUND)
    sent.forget()
    assert proj.app.AsyncResult(sent.id).state == "PENDING"


def test_forked_child_sends_over_connections_of_its_own(project):
    proj = project.write(ADD)
    project.worker()
    assert proj.add.delay(1).get(timeout=BOUND) == 11
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, str(proj.add.delay(2).get(timeout=BOUND)).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)  # nothing of the parent's may be torn down
    os.close(write)
    assert proj.add.delay(3).get(timeout=BOUND) == 13
    assert os.read(read, 10) == b"12"
    os.waitpid(child, 0)
    os.close(read)


def test_tasks_that_nobody_has_imported_are_found_and_run(project):
    proj = project.write(ADD)
    folder = project.folder / "my-app" / "jobs"
    folder.mkdir(parents=True)
    (folder / "später.py").write_text(
        "from fsdf_compat.app import shared_task\n"
        "@shared_task\ndef add(x, y): return x + y\n"
        "@shared_task(name='其他.名')\nasync def other(x): return [x]\n"
    )
    (folder / "broken.py").write_text("@shared_task\ndef no(): pass\nraise RuntimeError('why')\n")
    project.worker()
    send = proj.app.send_task
    assert send("my-app.jobs.später.add", (1, 2)).get(timeout=BOUND) == 3
    assert send("später.add", (3, 4)).get(timeout=BOUND) == 7
    assert send("其他.名", (5,)).get(timeout=BOUND) == [5]
    with pytest.raises(NotRegistered):
        send("broken.no").get(timeout=BOUND)
    with pytest.raises(NotRegistered):
        send("json.dumps", (1,)).get(timeout=BOUND)


def test_children_find_tasks_that_nobody_has_imported(redis_project):
    proj = redis_project.write("")
    (redis_project.folder / "late.py").write_text(
        "from fsdf_compat.app import shared_task\n@shared_task\ndef add(x, y): return x + y\n"
    )
    redis_project.worker("-P", "prefork", "-c", "2")
    sent = [proj.app.send_task("late.add", (n, 1)) for n in range(20)]
    assert [each.get(timeout=BOUND) for each in sent] == [n + 1 for n in range(20)]
