"""Where results are kept, and how they are waited for."""

from __future__ import annotations

import json
import sys
import threading

import pytest
import redis as client
from helpers import BOUND

from fsdf_compat import Celery, chord, group
from fsdf_compat.app.task import Context
from fsdf_compat.backends.base import KeyValueStoreBackend
from fsdf_compat.backends.redis import RedisBackend
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.exceptions import SecurityError, TimeoutError


@pytest.fixture
def make_app():
    made = []

    def make(backend, **settings):
        app = Celery("backends", broker="memory://", backend=backend)
        app.conf.update(settings)
        made.append(app)

        @app.task(name="same", shared=False)
        def same(x):
            return x

        @app.task(name="fail", shared=False)
        def fail(text):
            raise LookupError(text)

        return app

    yield make
    for app in made:
        app.close()


def worker(app):
    return start_worker(app, concurrency=2, pool="threads", perform_ping_check=False)


def test_other_programs_find_results_where_celery_has_them(make_app, redis_url):
    app = make_app(redis_url, result_extended=True)
    with client.Redis.from_url(redis_url) as server, worker(app), server.pubsub() as heard:
        heard.psubscribe("celery-task-meta-*")
        assert heard.get_message(timeout=BOUND)["type"] == "psubscribe"
        app.tasks["same"].apply_async(("é",), task_id="the-id").get(BOUND)
        stored = server.get("celery-task-meta-the-id")
        assert heard.get_message(timeout=BOUND)["data"] == stored
        told = json.loads(stored)
        assert 0 < server.ttl("celery-task-meta-the-id") <= 86400
    assert told.pop("date_done").endswith("+00:00")
    assert told.pop("worker").startswith("gen")
    assert told == {
        "status": "SUCCESS", "result": "é", "traceback": None, "children": [], "task_id": "the-id",
        "name": "same", "args": ["é"], "kwargs": {}, "retries": 0, "queue": "celery",
    }  # fmt: skip


def test_a_changed_setting_counts_for_the_next_result(make_app):
    app, request = make_app("redis://localhost"), Context(task="same", id="id")
    told = []
    for extended in (False, True, False):
        app.conf.result_extended = extended
        record = app.backend.record("id", "SUCCESS", 1, None, request)
        told.append(json.loads(record.body).get("name"))
    assert told == [None, "same", None]


def test_results_of_other_programs_are_found_and_waited_for(make_app, redis_url):
    app = make_app(redis_url)
    waiting = app.AsyncResult("theirs")
    assert waiting.state == "PENDING"
    told = {
        "status": "SUCCESS",
        "result": [1],
        "traceback": None,
        "children": [],
        "task_id": "theirs",
    }
    with client.Redis.from_url(redis_url) as server:

        def store():
            for text in (json.dumps({**told, "status": "STARTED"}), json.dumps(told)):
                server.set("celery-task-meta-theirs", text)
                server.publish("celery-task-meta-theirs", text)

        threading.Timer(0.1, store).start()
        assert waiting.get(BOUND) == [1]


def test_who_waits_for_a_chain_reads_the_steps_before_at_once(make_app, redis_url):
    app = make_app(redis_url)
    same, ids = app.tasks["same"], [f"step-{n}" for n in range(50)]

    def chained():
        last = None
        for id in ids:
            last = app.AsyncResult(id, parent=last)
        return last

    with client.Redis.from_url(redis_url) as server:
        for n, id in enumerate(ids[:20]):
            app.backend.mark_as_done(id, n)
        server.config_resetstat()
        with pytest.raises(TimeoutError):
            (last := chained()).get(timeout=0.01)
        calls = server.info("commandstats")
        assert calls["cmdstat_mget"]["calls"] < 5
        assert "cmdstat_get" not in calls
        assert [node._cache["result"] for node in [*last._parents()][:-21:-1]] == list(range(20))
        app.backend.mark_as_failure(ids[25], LookupError("step"))
        with pytest.raises(LookupError, match="step"):
            chained().get(timeout=BOUND)
        with worker(app):  # a parent that is no result of this backend is asked by itself
            app.backend.mark_as_done("one", 1)
            parent = app.AsyncResult("one", parent=same.apply((1,)))
            assert same.apply_async((2,)).get(timeout=BOUND) == 2
            found = app.AsyncResult("two", parent=parent)
            app.backend.mark_as_done("two", 2)
            assert found.get(timeout=BOUND) == 2


def test_a_success_is_never_overwritten_and_a_failure_is(make_app, redis_url):
    backend = make_app(redis_url).backend
    store = backend.replies().store
    for states, left in ((["FAILURE", "RETRY", "SUCCESS", "FAILURE"], "SUCCESS"),
                         (["STARTED", "FAILURE", "FAILURE"], "FAILURE")):  # fmt: skip
        for n, state in enumerate(states):
            value = ValueError(n) if state in ("FAILURE", "RETRY") else n
            record = backend.record(left, state, value)
            record.deliveries = n
            store.write([record])
        meta = backend.get_task_meta(left)
        assert meta["status"] == left
        assert meta["result"] == 2 or repr(meta["result"]) == "ValueError(2)"


def test_a_task_of_a_header_that_runs_twice_counts_once(make_app, redis_url):
    app = make_app(redis_url)
    with worker(app):
        header = group(app.tasks["same"].s(n) for n in range(2))
        body = app.tasks["same"].s()
        frozen = header._freeze_group_tasks(chord=body)
        body.freeze("the-body")
        backend = app.backend
        backend.apply_chord(frozen, body)
        backend.set_chord_size(frozen[0], 2)
        requests = [Context(id=f"member-{n}", group=frozen[0], group_index=n) for n in range(2)]
        for value in ("first", "again"):
            backend.on_chord_part_return(requests[0], "SUCCESS", value)
        with pytest.raises(TimeoutError):
            app.AsyncResult("the-body").get(0.1)
        backend.on_chord_part_return(requests[1], "SUCCESS", "second")
        assert app.AsyncResult("the-body").get(BOUND) == ["first", "second"]


def test_a_failure_is_told_though_another_task_of_the_group_never_ends(make_app, redis_url):
    app = make_app(redis_url)
    with worker(app):
        never = app.AsyncResult("never")
        failed = app.tasks["fail"].delay("now")
        both = app.GroupResult("both", [never, failed])
        with pytest.raises(LookupError, match="now"):
            both.get(timeout=BOUND)
        with pytest.raises(TimeoutError):
            both.get(timeout=0.1, propagate=False)


def test_messages_ask_for_a_reply_only_where_somebody_has_waited(make_app, redis_url):
    app = make_app(redis_url)
    with app.amqp.collecting() as quiet:
        app.tasks["same"].delay(1)
    with pytest.raises(TimeoutError):
        app.AsyncResult("nobody").get(0.01)
    with app.amqp.collecting() as asking:
        app.tasks["same"].delay(1)
    assert "reply" not in json.loads(quiet[0].body)["extra"]
    assert json.loads(asking[0].body)["extra"]["reply"] == app.backend.replies().address


class Shelf(KeyValueStoreBackend):
    """As others write a backend."""

    kept: dict = {}

    def get(self, key):
        return self.kept.get(key)

    def mget(self, keys):
        return [self.kept.get(key) for key in keys]

    def set(self, key, value):
        self.kept[key] = value

    def delete(self, key):
        self.kept.pop(key, None)


def test_a_backend_of_others_is_called_in_the_run(make_app):
    app = make_app(Shelf, result_chord_retry_interval=0.05)
    assert not app.backend.native
    with worker(app):
        assert app.tasks["same"].apply_async((5,), task_id="kept").get(BOUND) == 5
        assert json.loads(Shelf.kept[b"celery-task-meta-kept"])["result"] == 5
        body = chord([app.tasks["same"].s(n) for n in range(3)])(app.tasks["same"].s())
        assert body.get(BOUND) == [0, 1, 2]
        with pytest.raises(LookupError, match="no"):
            app.tasks["fail"].delay("no").get(BOUND)


class Loud(RedisBackend):
    """As an application changes the one for Redis."""

    stored: list = []

    def _store_result(self, task_id, result, state, *args, **kwargs):
        self.stored.append((task_id, state))
        return super()._store_result(task_id, result, state, *args, **kwargs)


def test_who_changes_the_redis_backend_has_his_methods_called(make_app, redis_url):
    app = make_app(redis_url)
    backend = Loud(app=app, url=redis_url)
    assert app.backend.native
    assert not backend.native
    backend.store_result("x", 1, "SUCCESS")
    assert Loud.stored == [("x", "SUCCESS")]
    assert app.AsyncResult("x", backend=backend).get(BOUND) == 1


@pytest.mark.parametrize(
    "stored", [{"exc_type": "system", "exc_module": "os", "exc_message": ["true"]},
               {"exc_type": "dict", "exc_module": "builtins", "exc_message": []}]
)  # fmt: skip
def test_what_claims_to_be_an_exception_and_is_none_is_not_called(make_app, stored):
    backend = make_app("cache+memory://").backend
    with pytest.raises(SecurityError):
        backend.exception_to_python(stored)


def test_an_exception_of_a_class_that_is_not_imported_here_keeps_its_name(make_app):
    backend = make_app("cache+memory://").backend
    stored = {"exc_type": "Odd", "exc_module": "not_imported_here", "exc_message": ["a", 1]}
    made = backend.exception_to_python(stored)
    assert type(made).__name__ == "Odd"
    assert made.args == ("a", 1)
    assert "not_imported_here" not in sys.modules
