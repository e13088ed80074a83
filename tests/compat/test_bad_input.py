"""What is wrong with messages, results, addresses and calls is told, and nothing else suffers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import redis as client
from click import ClickException
from helpers import BOUND, until
from kombu.exceptions import DecodeError, OperationalError

from fsdf_compat import Celery, _state, chord, uuid
from fsdf_compat._backends import redis_places
from fsdf_compat._engine.places import broker_options
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.exceptions import (
    ImproperlyConfigured,
    InvalidTaskError,
    TimeoutError,
    WorkerLostError,
)
from fsdf_engine import replies
from fsdf_engine.brokers import redis_connection, redis_route
from fsdf_engine.contracts import Outgoing


@pytest.fixture
def app(quick_looks):
    made = Celery("wrong", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.worker_hijack_root_logger = False
    made.conf.worker_enable_remote_control = False  # it takes half a second to stop

    @made.task(name="add", shared=False)
    def add(x, y):
        return x + y

    yield made
    made.close()


def works(app):
    return start_worker(app, pool="threads", concurrency=2, perform_ping_check=False)


def put(app, id, control, **arguments):
    """Publish what another program might have, which names its task and a result's id."""
    extra = {"task_id": id, "task": "add", **control}
    body = json.dumps({**arguments, "extra": extra}).encode()
    app.amqp.publisher(None).publish([Outgoing("celery.flat", id, body)])


@pytest.mark.parametrize(
    "control",
    [
        {"args": "ab"},
        {"headers": [1]},
        {"limits": "x"},
        {"limits": [1]},
        {"limits": ["a", "b"]},
        {"expires": "tomorrow"},
        {"expires": 1e300},
        {"attempt": "x"},
        {"positional": 99},
    ],
)
def test_who_waits_for_a_message_of_a_wrong_form_is_told_what_is_wrong(app, control):
    key, id = next(iter(control)).rstrip("s"), uuid()
    with works(app):
        put(app, id, control, x=1, y=2)
        with pytest.raises(InvalidTaskError, match=key):
            app.AsyncResult(id).get(timeout=BOUND)
        until(lambda: len(app.engine.broker("memory", "").dead_letters("celery.flat")) == 1)
        assert app.send_task("add", (1, 2)).get(timeout=BOUND) == 3


def test_control_data_that_is_null_is_as_if_it_were_not_there(app):
    id = uuid()
    with works(app):
        put(app, id, dict.fromkeys(("args", "headers", "limits", "expires")), x=1, y=2)
        assert app.AsyncResult(id).get(timeout=BOUND) == 3


@pytest.mark.parametrize(
    "headers",
    [{"callbacks": [3], "chain": [1, 2]}, {"errbacks": "x"}, {"chain": "{\n{}"}, {"chain": "3"}],
)
def test_who_waits_is_told_of_links_that_are_none(app, headers):
    id = uuid()
    with works(app):
        put(app, id, {"headers": headers}, x=1)
        app.AsyncResult(id).get(timeout=BOUND, propagate=False)
        assert app.AsyncResult(id).state == "FAILURE"
        assert app.send_task("add", (1, 2)).get(timeout=BOUND) == 3


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        (b"\x80\x04pickled", DecodeError),
        (b"[1, 2]", TypeError),
        (b"null", TypeError),
        (b'{"a": 1}', KeyError),
    ],
)
def test_who_waits_for_a_result_that_cannot_be_read_is_told(redis_url, stored, error):
    app = Celery("wrong", broker="memory://", backend=redis_url, set_as_current=False)
    id = uuid()
    with client.from_url(redis_url) as other:
        other.set(f"celery-task-meta-{id}", stored)
    with pytest.raises(error):
        app.AsyncResult(id).get(timeout=BOUND)
    app.close()


@pytest.mark.parametrize(
    ("raised", "told"), [(SystemExit(3), "exitcode 3"), (KeyboardInterrupt(), "KeyboardInterrupt")]
)
def test_a_task_that_ends_its_process_is_lost_as_in_celery_and_its_worker_goes_on(
    app, raised, told
):
    @app.task(name="leave", shared=False)
    def leave():
        raise raised

    with works(app):
        with pytest.raises(WorkerLostError, match=f"Worker exited prematurely: {told}."):
            leave.delay().get(timeout=BOUND)
        assert app.send_task("add", (1, 2)).get(timeout=BOUND) == 3


def test_purging_deletes_what_waits_in_our_queues(app):
    for _ in range(3):
        app.send_task("add", (1, 2))
    app.send_task("add", (1, 2), queue="other")
    assert app.control.purge_queues(["celery"]) == 3
    assert app.control.purge() == 1  # of queues that it has sent to, too


@pytest.mark.parametrize(
    "call",
    [
        lambda app: app.send_task("add"),
        lambda app: app.control.revoke("id"),
        lambda app: app.control.purge(),
    ],
)
def test_a_broker_that_is_down_is_an_operational_error(call):
    url = "redis://127.0.0.1:1/0"
    with Celery("down", broker=url, backend=url, set_as_current=False) as app:
        app.conf.broker_connection_timeout = 0.2
        with pytest.raises(OperationalError, match="cannot be reached"):
            call(app)


@pytest.fixture
def hanging_app(monkeypatch):
    """An app whose server takes connections and never answers."""
    server, taken = socket.create_server(("127.0.0.1", 0)), []

    def take():
        with suppress(OSError):
            while True:
                taken.append(server.accept()[0])

    threading.Thread(target=take, daemon=True).start()
    url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
    with Celery("hangs", broker=url, backend=url, set_as_current=False) as app:
        app.conf.broker_connection_timeout = 0.2
        yield app
        server.shutdown(socket.SHUT_RDWR)
        for each in (server, *taken):
            each.close()


def group_of(app):
    return app.GroupResult("g", [app.AsyncResult(id) for id in "ab"])


@pytest.mark.parametrize(
    "wait",
    [
        lambda app: app.AsyncResult("id").get(timeout=0.1),
        lambda app: app.AsyncResult("id").get(timeout=0.1, on_interval=int),
        lambda app: group_of(app).get(timeout=0.1),
        lambda app: group_of(app).join(timeout=0.1),
    ],
)
def test_who_waits_at_a_server_that_hangs_waits_no_longer_than_he_says(
    hanging_app, monkeypatch, wait
):
    monkeypatch.setattr(replies, "LAST", 0.1)
    for module in (redis_route, redis_connection):
        monkeypatch.setattr(module, "TIMEOUT", 10 * BOUND)
    with pytest.raises(TimeoutError, match="timed out"):
        wait(hanging_app)


@pytest.mark.parametrize(
    "ask",
    [
        lambda app: app.send_task("add"),
        lambda app: app.control.inspect(timeout=0.1).ping(),
        lambda app: app.control.revoke("id"),
        lambda app: chord([app.signature("add")], app.signature("add")).delay(),
    ],
)
def test_a_broker_that_hangs_is_an_operational_error(hanging_app, monkeypatch, ask):
    monkeypatch.setattr(redis_route, "TIMEOUT", 0.2)
    with pytest.raises(OperationalError):
        ask(hanging_app)


@pytest.mark.parametrize(
    "wait",
    [
        lambda app: app.AsyncResult("id").get(timeout=BOUND),
        lambda app: app.AsyncResult("id").get(),
        lambda app: app.AsyncResult("id").get(timeout=BOUND, on_interval=int),
        lambda app: list(app.AsyncResult("id").collect(timeout=BOUND)),
        lambda app: group_of(app).get(timeout=BOUND),
        lambda app: group_of(app).join(timeout=BOUND),
        lambda app: list(group_of(app).iter_native(timeout=BOUND)),
    ],
)
def test_who_waits_at_a_server_that_refuses_the_password_gets_an_operational_error(redis_url, wait):
    url = redis_url.replace("://", "://:wrong@")
    with Celery("refused", broker="memory://", backend=url, set_as_current=False) as app:
        with pytest.raises(OperationalError, match="refuses the password"):
            wait(app)


def test_a_result_backend_that_hangs_is_told_by_its_client(hanging_app, monkeypatch):
    monkeypatch.setattr(redis_places, "PATIENCE", 0.2)
    for ask in (hanging_app.AsyncResult("id").ready, hanging_app.AsyncResult("id").forget):
        with pytest.raises(client.exceptions.TimeoutError):
            ask()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:secret@127.0.0.1:1/0", "cannot be reached"),
        ("sqs://u:secret@h", "there is no sqs"),
    ],
)
def test_the_command_purge_says_why_it_cannot(url, why):
    with Celery("down", broker=url, set_as_current=False) as app:
        app.conf.broker_connection_timeout = 0.2
        with pytest.raises(ClickException, match=why) as raised:
            app.start(["purge", "-f"])
    assert "secret" not in raised.value.message


def test_of_two_apps_with_one_name_for_a_task_each_has_its_own(monkeypatch):
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    apps = [Celery(name, broker="memory://", set_as_current=False) for name in "ab" * 8]
    for app in apps:
        app.task(name="same")(lambda app=app: app)
    for app in apps:
        assert app.tasks["same"]() is app
        app.close()


def test_a_value_that_is_too_deep_for_our_encoder_is_one_for_kombus(app):
    deep = []
    for _ in range(400):
        deep = [deep]

    @app.task(name="nest", shared=False)
    def nest():
        return deep

    with works(app):
        assert nest.delay().get(timeout=BOUND) == deep


@pytest.mark.parametrize(("given", "is_told"), [("6", 6), ("high", 0)])
def test_a_priority_may_be_a_text_as_in_celery(app, given, is_told):
    @app.task(name="ranked", bind=True, shared=False)
    def ranked(self):
        return self.request.delivery_info["priority"]

    with works(app):
        assert ranked.apply_async(priority=given).get(timeout=BOUND) == is_told


def run_command(project, *words):
    """Run a command of the project's app to its end; that we may be root is not said."""
    quiet = {"PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-m", "fsdf_engine.cli", "celery", "-A", "proj", *words],
        cwd=project.folder, env={**os.environ, "PYTHONPATH": project.root, **quiet},
        capture_output=True, text=True, timeout=BOUND,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("call", "Could not connect to the message broker."),
        ("result", "Could not ask the result backend redis://127.0.0.1:1/0."),
    ],
)
def test_a_command_tells_of_a_server_that_is_down_without_a_traceback(make_project, command, told):
    project = make_project("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0")
    project.write("app.conf.broker_connection_timeout = 0.2\n")
    done = run_command(project, command, "proj.one")
    assert done.returncode == 69
    assert done.stderr.startswith(f"Error: {told}")
    assert "Traceback" not in done.stderr


def failed(project, words):
    """Run a command of an empty project that fails; return what it says."""
    project.write("")
    done = run_command(project, *words.split())
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    "words",
    ["worker", "beat", "call one", "purge -f", "status", "inspect ping", "control shutdown"],
)
def test_every_command_says_in_a_line_what_is_wrong_with_a_setting(make_project, words):
    project = make_project("reddis://:secret@localhost", "cache+memory://")
    told = "broker_url='reddis://:***@localhost': there is no reddis://; did you mean 'redis'?"
    assert failed(project, words) == f"Error: {told}\n"


@pytest.mark.parametrize("words", ["worker", "call one", "result id"])
def test_a_command_says_in_a_line_that_a_result_backend_is_none(make_project, words):
    project = make_project("sqlite:///queue.sqlite", "reddis://:secret@localhost")
    told = "there is no result backend 'reddis'; did you mean 'redis'?"
    assert failed(project, words) == f"Error: {told}\n"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            "broker_url = 'redis:/localhost'",
            "there is no :// behind redis; write redis://localhost",
        ),
        ("broker_url = 'redis://h:port'", "wrong Redis URL"),
        ("broker_url = 'amqp://h:port'", "'port' is no port"),
        ("broker_use_ssl = 'yes'", "broker_use_ssl is of type str: give True, False or a dict"),
        ("broker_use_ssl = {'ssl_cert_reqs': 'some'}", "ssl_cert_reqs=some"),
        ("broker_use_ssl = {'ssl_ca_certs': '/no/such'}", "ssl_ca_certs='/no/such'"),
        ("result_backend = 'reddis://h'", "there is no result backend 'reddis'; did you mean 're"),
        ("result_backend = 'redis://h:port'", "result_backend="),
        ("worker_pool = 'thraeds'", "there is no pool 'thraeds'; did you mean 'threads'?"),
    ],
)
def test_a_worker_says_in_a_line_what_is_wrong_with_a_setting(redis_project, setting, told):
    redis_project.write(f"app.conf.{setting}")
    done = run_command(redis_project, "worker")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert told in done.stderr


def test_what_a_worker_learns_of_a_setting_when_it_begins_is_a_line_of_its_log(redis_project):
    redis_project.write("app.conf.task_default_queue = 'fsdf:mine'")
    done = run_command(redis_project, "worker")
    assert done.returncode == 1
    assert "CRITICAL/MainProcess] Unrecoverable error: the queue's name 'fsdf:mine" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", ["broker", "backend"])
def test_a_client_that_is_not_installed_is_told_of(make_project, redis_url, role):
    other = {"broker": "sqlite:///queue.sqlite", "backend": "cache+memory://", role: redis_url}
    project = make_project(other["broker"], other["backend"])
    (project.folder / "redis.py").write_text("raise ImportError('as if it were not installed')")
    project.write("")
    done = run_command(project, "worker")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install" in done.stderr


def test_an_error_of_the_users_keeps_its_traceback(redis_project):
    redis_project.write("""
    from fsdf_compat import bootsteps

    class Broken(bootsteps.StartStopStep):
        def start(self, worker):
            raise ValueError("of the user's")

    app.steps["worker"].add(Broken)
    """)
    done = run_command(redis_project, "worker")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "of the user's" in done.stderr


@pytest.mark.parametrize(
    "call",
    [
        lambda app, add: add.delay(1, 2),
        lambda app, add: add.apply_async((1, 2), countdown=1),
        lambda app, add: app.send_task("add"),
        lambda app, add: app.AsyncResult("id").get(timeout=BOUND),
        lambda app, add: app.control.purge(),
        lambda app, add: app.control.revoke("id"),
        lambda app, add: app.control.inspect().ping(),
        lambda app, add: chord([add.s(1, 2)], add.s(3)).delay(),
    ],
)
def test_a_wrong_setting_is_told_to_every_caller_as_in_celery(call):
    url = "redis://localhost/0?no_such_option=1"
    with Celery("wrong", broker=url, backend=url, set_as_current=False) as app:
        add = app.task(name="add", shared=False)(lambda *numbers: sum(numbers))
        with pytest.raises(ImproperlyConfigured, match="wrong Redis URL"):
            call(app, add)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://u:secret@h", "'http://u:***@h': there is no http://; there are amqp, amqps, "),
        ("reddis://h", "'reddis://h': there is no reddis://; did you mean 'redis'?"),
        ("redis//:secret@h/0", "'redis//:***@h/0': there is no :// behind redis; write redis://:"),
        (
            "redis:localhost",
            "'redis:localhost': there is no :// behind redis; write redis://localh",
        ),
        ("localhost:6379", "'localhost:6379': it begins with no scheme, such as redis://; there a"),
        ("u:secret@h", "'u:***@h': it begins with no scheme"),
        ("secret@h", "'***@h': it begins with no scheme"),
        (
            "reddis//secret@h",
            "'***@h': it begins with no scheme, such as redis://; did you mean 're",
        ),
        (":secret@h", "':***@h': it begins with no scheme"),
    ],
)
def test_a_broker_that_is_none_is_shown_as_it_was_typed_but_for_its_password(url, told):
    with pytest.raises(ImproperlyConfigured) as raised:
        broker_options(url)
    assert str(raised.value).startswith(f"broker_url={told}")
    assert "secret" not in str(raised.value)
