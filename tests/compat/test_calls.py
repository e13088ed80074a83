"""What a call looks like to the run that gets it, and what a run sends on."""

from __future__ import annotations

import json
import os
import socket
import uuid

import pytest
from helpers import BOUND, until


def test_a_call_arrives_as_it_was_written(project):
    proj = project.write("""
    @app.task(bind=True)
    def show(self, a, /, b=0, *more, extra=None, **others):
        r = self.request
        return [list(r.args), r.kwargs, [a, b, list(more), extra, others], r.headers, r.properties]
    """)
    project.worker()
    for args, kwargs in (
        ((1,), {}),
        ((1, 2), {}),
        ((1,), {"b": 2}),
        ((1, 2, 3, 4), {"extra": {"task_id": 5}}),
        ((1,), {"b": 2, "z": [{"__type__": 1}], "y": None}),
    ):
        told = proj.show.apply_async(args, kwargs, headers={"h": 1}, own="p").get(timeout=BOUND)
        assert told[:2] == [list(args), kwargs]
        assert told[3:] == [{"h": 1}, {"own": "p"}]
    by_name = proj.app.send_task("proj.show", (1, 2), {"z": 3})
    assert by_name.get(timeout=BOUND)[:2] == [[1, 2], {"z": 3}]


def test_a_retry_that_the_task_catches_is_sent_all_the_same(redis_project):
    proj = redis_project.write("""
    @app.task(bind=True)
    def catches(self):
        note(str(self.request.retries))
        if not self.request.retries:
            try:
                self.retry(countdown=0.1)
            except Exception:
                pass
        return "done"

    @app.task(bind=True)
    def goes_on(self):
        note("on" + str(self.request.retries))
        if not self.request.retries:
            self.retry(countdown=0.1, throw=False)
        return self.request.retries
    """)
    redis_project.worker()
    assert proj.catches.delay().get(timeout=BOUND) == "done"
    redis_project.noted("0", "1")
    proj.goes_on.delay()
    redis_project.noted("0", "1", "on0", "on1")


def test_what_a_run_sends_knows_where_it_comes_from(redis_project):
    proj = redis_project.write("""
    @app.task(bind=True)
    def child(self):
        note(json.dumps([self.request.root_id, self.request.parent_id]))

    @app.task(bind=True)
    def parent(self):
        child.delay()
        child.apply_async(root_id="own", parent_id="other")
        return self.request.root_id, self.request.parent_id
    """)
    redis_project.worker()
    sent = proj.parent.delay()
    assert sent.get(timeout=BOUND) == [sent.id, None]
    lines = {json.dumps([sent.id, sent.id]), json.dumps(["own", "other"])}  # in any order
    until(lambda: len(redis_project.notes()) == 2)
    assert set(redis_project.notes()) == lines
    assert len(sent.children) == 2


def test_waiting_for_a_result_in_a_run_is_refused_unless_it_is_allowed(redis_project):
    proj = redis_project.write("""
    from fsdf_compat.result import allow_join_result

    @app.task
    def inner():
        return 1

    @app.task
    def outer(allowed):
        sent = inner.delay()
        if not allowed:
            return sent.get(timeout=20)
        with allow_join_result():
            return sent.get(timeout=20)
    """)
    redis_project.worker()
    with pytest.raises(RuntimeError, match="Never call"):
        proj.outer.delay(False).get(timeout=BOUND)
    assert proj.outer.delay(True).get(timeout=BOUND) == 1


def test_a_receiver_of_the_publish_signal_changes_what_arrives(redis_project):
    proj = redis_project.write("""
    from fsdf_compat.signals import before_task_publish

    @before_task_publish.connect(sender="proj.show")
    def trace(headers, **kwargs):
        headers["traceparent"] = "00-1"

    @app.task(bind=True)
    def show(self, x):
        return self.request.traceparent, self.request.headers, self.request.args
    """)
    redis_project.worker()
    told = proj.show.delay(5).get(timeout=BOUND)
    assert told == ["00-1", {"traceparent": "00-1"}, [5]]


def test_a_run_knows_who_has_sent_it_and_what_it_correlates_with(redis_project):
    proj = redis_project.write("""

    @app.task(bind=True)
    def child(self):
        note(self.request.origin)

    @app.task(bind=True)
    def show(self, calls=False):
        if calls:
            child.delay()
        return self.request.origin, self.request.correlation_id, f"gen{os.getpid()}"
    """)
    redis_project.worker()
    here = f"gen{os.getpid()}@{socket.gethostname()}"
    plain, chosen = proj.show.delay(True), proj.show.apply_async(correlation_id="c", origin="me")
    origin, correlated, runs_in = plain.get(timeout=BOUND)
    assert (origin, correlated) == (here, plain.id)
    assert chosen.get(timeout=BOUND)[:2] == ["me", "c"]
    by_name = proj.app.send_task("proj.show")
    assert by_name.get(timeout=BOUND)[:2] == [here, by_name.id]
    redis_project.noted(f"{runs_in}@{socket.gethostname()}")


def test_an_id_that_is_no_text_is_refused_and_keeps_nobody_from_results(redis_project):
    proj = redis_project.write("""
    @app.task
    def one():
        return 1
    """)
    redis_project.worker()
    for id in (5, uuid.uuid4()):
        with pytest.raises(TypeError, match="task id .* is no text"):
            proj.one.apply_async(task_id=id)
        with pytest.raises(TypeError, match="task id .* is no text"):
            proj.app.AsyncResult(id).get(timeout=BOUND)
    assert proj.one.apply_async(task_id="mine").get(timeout=BOUND) == 1
    assert proj.app.AsyncResult(b"mine").get(timeout=BOUND) == 1  # as a client of Redis gives it
