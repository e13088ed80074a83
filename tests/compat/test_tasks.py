"""Tasks as their author sees them, without a worker."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest

from fsdf_compat import Celery
from fsdf_compat.app.finding import find_app
from fsdf_compat.app.options import instant, sending
from fsdf_compat.app.policy import CeleryPolicy
from fsdf_compat.exceptions import (
    Ignore,
    ImproperlyConfigured,
    NoResultBackend,
    NotRegistered,
    NotYetSupported,
    Reject,
    Retry,
)
from fsdf_engine.contracts import outcomes

UTC = datetime.timezone.utc


@pytest.fixture
def app():
    with Celery("proj", broker="memory://", backend="cache+memory://") as made:
        yield made


def test_task_called_directly_runs_here(app):
    @app.task
    def add(x, y=2):
        """Adds."""
        return x + y

    @app.task(bind=True)
    def bound(self, x):
        return self.name, self.request.called_directly, self.request.retries, x

    assert add(1) == 3
    assert bound(4) == (bound.name, True, 0, 4)
    assert add.__doc__ == "Adds."
    assert add.name.endswith("test_tasks.add")
    assert app.tasks[add.name] is add


def test_retry_of_a_direct_call_raises_its_reason(app):
    @app.task(bind=True)
    def flaky(self, exc=None):
        try:
            raise KeyError("handled")
        except KeyError:
            self.retry(exc=exc)

    @app.task(bind=True)
    def bare(self):
        self.retry()

    with pytest.raises(Retry):
        flaky()
    with pytest.raises(ValueError):
        flaky(ValueError())
    with pytest.raises(Retry):
        bare()
    with pytest.raises(NotYetSupported, match="throw"):
        bare.retry(throw=False)


def test_names_come_from_main_module_and_options(app):
    def fn():
        pass

    fn.__module__ = "__main__"
    assert app.task(fn).name == "proj.fn"
    assert app.task(name="given")(fn).name == "given"
    first = app.tasks["given"]
    assert app.task(name="given")(lambda: 0) is first
    with pytest.raises(NotRegistered):
        app.tasks["missing"]


def test_options_become_attributes_and_base_is_inherited(app):
    class Base(app.Task):
        factor = 3

        def tripled(self, x):
            return self.factor * x

    @app.task(base=Base, bind=True, own="mine", max_retries=None)
    def use(self, x):
        return self.tripled(x), self.own, self.max_retries

    assert use(2) == (6, "mine", None)


def test_class_with_run_is_a_task(app):
    class Adder(app.Task):
        name = "adder"

        def run(self, x):
            return x + 1

    assert app.register_task(Adder)(1) == 2
    assert app.tasks["adder"](1) == 2


def test_what_is_not_there_yet_says_so(app):
    @app.task
    def add(x):
        return x

    for attempt in (
        lambda: add.s(1),
        lambda: add.apply((1,)),
        lambda: add.apply_async((1,), link=add),
        lambda: app.signature("x"),
        lambda: app.control.purge(),
        lambda: app.control.revoke("some-id", terminate=True),
        lambda: Celery(loader="x"),
        lambda: Celery(task_serializer="pickle").task(lambda: 0).delay(),
        lambda: Celery(task_always_eager=True).task(lambda: 0).delay(),
        lambda: type("T", (app.Task,), {"on_failure": lambda self: 0}),
    ):
        with pytest.raises(NotYetSupported):
            attempt()
    import fsdf_compat

    with pytest.raises(NotYetSupported, match="chord"):
        fsdf_compat.chord


def test_arguments_that_do_not_fit_fail_where_they_are_sent(app):
    @app.task(bind=True)
    def add(self, x):
        return x

    with pytest.raises(TypeError, match="'y'"):
        add.delay(1, y=1)
    with pytest.raises(TypeError, match="x"):
        add.delay()
    with pytest.raises(TypeError, match="list or tuple"):
        add.apply_async("abc")
    with pytest.raises(TypeError, match="JSON"):
        add.delay(object())
    for limits in ({"soft_time_limit": 2, "time_limit": 1}, {"time_limit": -1}):
        with pytest.raises(TypeError, match="limit|function_timeout"):
            add.apply_async((1,), **limits)
    with pytest.raises(ValueError, match="soft_time_limit"):
        app.task(name="never", soft_time_limit=2, time_limit=1)(lambda: 0).delay()
    with pytest.raises(NotYetSupported, match="did you mean 'countdown'"):
        add.apply_async((1,), countdwon=3)


def test_results_without_a_backend_are_refused_clearly():
    with Celery("proj", broker="memory://") as app:
        sent = app.send_task("nothing")
        with pytest.raises(NoResultBackend, match="result_backend"):
            sent.get()
        with pytest.raises(NotImplementedError):
            app.AsyncResult("x").state  # noqa: B018


def test_result_equals_another_of_its_id(app):
    assert app.AsyncResult("a") == app.AsyncResult("a") == "a"
    assert app.AsyncResult("a") != app.AsyncResult("b")
    assert {app.AsyncResult("a"): 1}[app.AsyncResult("a")] == 1
    assert app.AsyncResult("a").state == "PENDING"
    assert app.AsyncResult("a").result is None


def test_times_are_relative_seconds_or_instants():
    east = datetime.timezone(datetime.timedelta(hours=2))
    assert instant(datetime.datetime(1970, 1, 1, 1)) == 3600  # as Celery has it: UTC
    assert instant(datetime.datetime(1970, 1, 1, 3, tzinfo=east)) == 3600
    assert instant("1970-01-01T01:00:00Z") == 3600
    now = datetime.datetime.now(UTC).timestamp()
    assert 59 < instant(datetime.timedelta(minutes=1)) - now < 62
    assert sending({"countdown": None, "expires": None}, abs) == ("", {})
    assert sending({"countdown": -1, "queue": "q"}, abs) == ("q", {"countdown": 0.0})


def test_exceptions_decide_as_celery_has_it():
    policy = CeleryPolicy(max_retries=0, retry_on=(OSError,), limit=2, backoff=2, jitter=False)
    cause = ValueError("x")
    assert policy.outcome(Retry(None, cause, 5), 7) == outcomes.Retry(cause, 5.0, 8)
    assert policy.outcome(Ignore(), 0) == outcomes.Succeeded(None)
    assert policy.outcome(Reject("why"), 0) == outcomes.Rejected("why")
    assert policy.outcome(Reject(requeue=True), 0) == outcomes.Requeue()
    assert policy.outcome(cause, 0) == outcomes.Failed(cause)
    error = OSError()
    assert [policy.outcome(error, n).delay for n in range(2)] == [2.0, 4.0]
    assert policy.outcome(error, 2) == outcomes.Failed(error)
    assert policy.outcome(outcomes.Deadline(), 0, 3.0) == outcomes.TimedOut(3.0)
    changed = Retry(None, cause, 5, changes={"queue": "other"})
    assert policy.outcome(changed, 7) == outcomes.Retry(cause, 5.0, 8, {"queue": "other"})
    endless = CeleryPolicy(max_retries=0, retry_on=(OSError,), limit=None)
    assert endless.outcome(error, 10_000) == outcomes.Retry(error, 180.0, 10_001)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A package whose app is in proj.celery, two others, one of them without tasks, a module."""
    for name in ("proj", "shop", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "proj" / "celery.py").write_text(
        "from fsdf_compat import Celery\n"
        "tool = 1\n"
        "mine = Celery('proj', include=['extra'])\n"
        "mine.autodiscover_tasks(lambda: ['shop.apps.Shop', 'shop', 'plain', 'extra'])\n"
    )
    declare = "from proj.celery import mine\n@mine.task\ndef one(): pass\n"
    (tmp_path / "shop" / "tasks.py").write_text(declare)
    (tmp_path / "shop" / "apps.py").write_text("class Shop: pass\n")
    (tmp_path / "extra.py").write_text(declare)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("proj", "shop", "plain", "extra")]:
        del sys.modules[name]


def test_app_is_found_as_celery_finds_it(packages):
    app = find_app("proj")
    assert app.main == "proj"
    assert find_app("proj.celery") is find_app("proj.celery:mine") is app
    assert find_app("proj.celery.mine") is app
    for wrong in ("proj.celery:tool", "proj.celery:nothing", "plain", "nowhere", "proj.nowhere"):
        with pytest.raises(ImproperlyConfigured):
            find_app(wrong)


def test_tasks_of_included_and_discovered_modules_are_imported(packages):
    app = find_app("proj")
    assert set(app.tasks) == set()
    app.import_tasks()
    assert set(app.tasks) == {"shop.tasks.one", "extra.one"}


def test_error_inside_a_tasks_module_is_not_hidden(packages, tmp_path):
    (tmp_path / "shop" / "tasks.py").write_text("import no_such_dependency")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find_app("proj").import_tasks()


@pytest.mark.parametrize(
    ("package", "related"), [("nowhere", "tasks"), ("nowhere.more", "tasks"), ("shop.more", None)]
)
def test_package_that_is_not_there_is_named(packages, package, related):
    app = find_app("proj")
    app.autodiscover_tasks([package], related_name=related)
    with pytest.raises(ModuleNotFoundError, match="nowhere|shop.more"):
        app.import_tasks()


def test_import_loads_neither_engine_nor_clients():
    code = "import sys, fsdf_compat, fsdf_compat.bin.celery; print('fsdf_engine' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
