"""Tasks and apps as their author sees them, without a worker."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import pytest

from fsdf_compat import Celery, Task, current_app, current_task, shared_task
from fsdf_compat._engine.gate import CelerysGate
from fsdf_compat._state import _get_active_apps, _task_stack, set_default_app, task_join_will_block
from fsdf_compat.app.utils import find_app
from fsdf_compat.exceptions import (
    DuplicateTaskNameWarning,
    Ignore,
    InvalidTaskError,
    MaxRetriesExceededError,
    NotRegistered,
    Retry,
)
from fsdf_engine.contracts import Delivery, Job, Plan
from fsdf_engine.contracts import outcomes as ends


@pytest.fixture
def app():
    with Celery("proj", broker="memory://", backend="cache+memory://", fixups=[]) as made:
        yield made


@pytest.fixture
def no_default_app():
    set_default_app(None)
    yield
    set_default_app(None)


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
    assert app.tasks[add.name] is add._get_current_object()
    assert add.run(1, 5) == 6
    assert add.__wrapped__(1, 5) == 6


def test_a_task_is_made_when_it_is_first_used(app):
    @app.task(name="lazy")
    def lazy():
        pass

    assert "lazy" not in app._tasks
    assert not app.finalized
    assert lazy.name == "lazy"
    assert app._tasks["lazy"] is lazy._get_current_object()


def test_a_task_of_all_apps_is_the_current_ones(app):
    @shared_task(name="shared")
    def shared():
        return 1

    with Celery("later", set_as_current=False, fixups=[]) as later:
        assert shared.app is app
        assert "shared" in later.tasks
        later.set_current()
        assert shared.app is later
        assert current_app.main == "later"
    with pytest.raises(TypeError, match="more than once"):
        shared_task(shared)
    app.set_current()


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

    for error, raised in ((None, Retry), (ValueError("mine"), ValueError)):
        with pytest.raises(raised) as told:
            flaky(error)
        assert isinstance(told.value.__cause__, KeyError)
    with pytest.raises(Retry):
        bare()


def test_names_come_from_main_module_and_options(app):
    def fn():
        pass

    fn.__module__ = "__main__"
    assert app.task(fn).name == "proj.fn"
    assert app.task(name="given")(fn).name == "given"
    with pytest.raises(NotRegistered):
        app.tasks["missing"]


def test_two_functions_of_one_name_are_the_first_and_a_warning(app):
    first = app.task(name="one")(lambda: 1)
    with pytest.warns(DuplicateTaskNameWarning, match="registered first") as told:
        second = app.task(name="one")(lambda: 2)
        assert (first(), second()) == (1, 1)
    assert told[0].filename == __file__


def test_options_become_attributes_and_base_is_inherited(app):
    class Base(app.Task):
        factor = 3

        def tripled(self, x):
            return self.factor * x

    @app.task(base=Base, bind=True, own="mine", max_retries=None)
    def use(self, x):
        return self.tripled(x), self.own, self.max_retries

    assert use(2) == (6, "mine", None)


def test_attributes_that_are_not_given_come_from_the_settings(app):
    app.conf.update(task_acks_late=True, task_time_limit=5, task_serializer="yaml")
    app.conf.task_annotations = {"annotated": {"rate_limit": "5/s"}, "*": {"priority": 4}}
    annotated = app.task(name="annotated", time_limit=9)(lambda: 0)
    assert (annotated.acks_late, annotated.time_limit, annotated.serializer) == (True, 9, "yaml")
    assert (annotated.rate_limit, annotated.priority) == ("5/s", 4)


def test_class_with_run_is_a_task(app):
    made = []

    class Adder(app.Task):
        name = "adder"

        def __init__(self):
            made.append(self)

        def run(self, x):
            return x + 1

        @classmethod
        def on_bound(cls, app):
            made.append(app)

    assert app.register_task(Adder)(1) == 2
    assert app.tasks["adder"](1) == 2
    assert made[0] is app.tasks["adder"]
    assert made[1] is app
    with pytest.raises(NotImplementedError):
        app.register_task(type("Empty", (Task,), {"name": "empty"}))()


def test_a_call_of_its_own_wraps_the_run(app):
    class Context(app.Task):
        def __call__(self, *args, **kwargs):
            return "in", super().__call__(*args, **kwargs)

    task = app.task(base=Context)(lambda x: x)
    assert task(1) == ("in", 1)
    assert task.apply((2,)).get() == ("in", 2)


def test_an_apps_own_class_of_tasks_wraps_shared_ones_too(no_default_app):
    entered = []

    class InContext(Task):
        def __call__(self, *args, **kwargs):
            entered.append(self.name)
            return self.run(*args, **kwargs)

    @shared_task(name="shared", ignore_result=False)
    def shared(x):
        return x

    with Celery("flask", task_cls=InContext, set_as_current=False, fixups=[]) as app:
        app.config_from_object({"broker_url": "memory://", "task_ignore_result": True})
        app.set_default()
        assert shared.app is app
        assert (shared(1), shared.apply((2,)).get()) == (1, 2)
        assert entered == ["shared", "shared"]
        assert isinstance(shared._get_current_object(), InContext)


def test_a_registry_refuses_what_has_no_name(app):
    with pytest.raises(InvalidTaskError, match="Task"):
        app.tasks.register(app.Task())
    with pytest.raises(NotRegistered):
        app.tasks.unregister("nothing")
    assert "celery.chord_unlock" in app.tasks.regular()
    assert app.tasks.periodic() == {}


def test_eager_calls_retry_here_and_report_what_became_of_them(app):
    attempts = []

    @app.task(bind=True, max_retries=2)
    def flaky(self, x, fails):
        attempts.append((self.request.retries, self.request.is_eager, self.request.args))
        if len(attempts) <= fails:
            raise self.retry(exc=OSError("no"), countdown=30)
        return x

    assert flaky.apply((7, 2)).get() == 7
    assert [retries for retries, *_ in attempts] == [0, 1, 2]
    assert attempts[0][1:] == (True, (7, 2))
    attempts.clear()
    failed = flaky.apply((7, 9))
    assert failed.failed()
    assert isinstance(failed.result, OSError)
    with pytest.raises(OSError, match="no"):
        failed.get()


def test_retries_end_at_their_number(app):
    @app.task(bind=True, max_retries=1)
    def flaky(self):
        self.retry(countdown=0)

    with pytest.raises(MaxRetriesExceededError, match="Can't retry"):
        flaky.apply().get()


def test_named_exceptions_are_retried_and_others_not(app):
    attempts = []

    @app.task(
        bind=True, autoretry_for=(LookupError,), dont_autoretry_for=(IndexError,),
        retry_kwargs={"max_retries": 2, "countdown": 0},
    )  # fmt: skip
    def flaky(self, error):
        attempts.append(self.request.retries)
        raise error

    assert isinstance(flaky.apply((KeyError("x"),)).result, KeyError)
    assert attempts == [0, 1, 2]
    for error in (IndexError("x"), OSError("x"), Ignore()):
        attempts.clear()
        flaky.apply((error,))
        assert attempts == [0]


def test_a_coroutine_function_is_retried_as_any_other(app):
    attempts = []

    @app.task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 1, "countdown": 0})
    async def flaky():
        attempts.append(1)
        raise OSError

    assert isinstance(flaky.apply().result, OSError)
    assert len(attempts) == 2


def test_a_retry_takes_no_second_value_for_what_is_given_anew(app):
    seen = []

    @app.task(bind=True, max_retries=1)
    def task(self, a, b=0, *, again):
        seen.append((a, b))
        if again:
            raise self.retry(*again, countdown=0)

    for again in (([5], None), ([5, 2], None), (None, {"a": 5, "b": 2, "again": None})):
        seen.clear()
        task.apply((1,), {"b": 2, "again": again})
        assert seen == [(1, 2), (5, 2)]


def test_replaced_runs_go_on_here_where_they_are_eager(app):
    add = app.task(name="add")(lambda x, y: x + y)

    @app.task(bind=True)
    def go_on(self, x):
        return self.replace(add.s(x, 10))

    assert go_on.apply((5,)).get() == 15


def test_a_request_can_be_changed_and_shows_every_header(app):
    @app.task(bind=True)
    def show(self):
        self.request.noted = "mine"
        told = self.request
        return told.get("noted"), told.headers, told.get("absent", 3), told.as_execution_options()

    noted, headers, absent, options = show.apply(headers={"trace": "t"}).get()
    assert (noted, headers, absent) == ("mine", {"trace": "t"}, 3)
    assert options["headers"] == {"trace": "t"}


def test_current_task_is_that_of_the_thread_and_of_the_coroutine(app):
    @app.task(bind=True, name="outer")
    def outer(self, function):
        return function()

    def in_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(_task_stack.top))
        thread.start()
        thread.join()
        return found[0], current_task.name

    async def in_coroutines():
        names = []

        async def run(name):
            _task_stack.push(app.tasks[name])
            await asyncio.sleep(0)
            names.append(app.current_task.name)

        app.task(name="a")(lambda: 0), app.task(name="b")(lambda: 0)
        await asyncio.gather(run("a"), run("b"))
        return names, app.current_task.name

    assert outer(in_thread) == (None, "outer")
    assert outer(lambda: asyncio.run(in_coroutines())) == (["a", "b"], "outer")
    assert app.current_task is None
    assert not task_join_will_block()


def test_models_are_arguments_and_results(app):
    pydantic = pytest.importorskip("pydantic")

    class Point(pydantic.BaseModel):
        x: int

    def move(point, by=1):
        assert isinstance(point, Point)
        return Point(x=point.x + by)

    async def amove(point):
        return Point(x=point.x + 1)

    for each in (move, amove):
        each.__annotations__.update({"point": Point, "return": Point})
    move, amove = (app.task(pydantic=True)(each) for each in (move, amove))
    assert move({"x": 1}) == {"x": 2}
    assert amove.apply(({"x": 4},)).get() == {"x": 5}
    app.conf.task_always_eager = True
    assert move.delay(Point(x=1), by=2).get() == {"x": 3}


def test_apps_and_tasks_are_pickled_by_what_they_are_made_of(app):
    task = app.task(name="picklable")(lambda: 0)
    assert pickle.loads(pickle.dumps(task)) is task._get_current_object()
    app.conf.own = 5
    made = pickle.loads(pickle.dumps(app))
    assert (made.main, made.conf.own, made.conf.broker_url) == ("proj", 5, "memory://")
    assert pickle.loads(pickle.dumps(app.AsyncResult("id"))).id == "id"


def test_an_app_that_is_closed_is_none_any_more(no_default_app):
    with Celery("closing", set_as_current=False, fixups=[]) as closing:
        assert closing in _get_active_apps()
    assert closing not in _get_active_apps()
    made = []
    thread = threading.Thread(target=lambda: made.append(current_app.main))
    thread.start()
    thread.join()
    assert made == ["default"]


def test_worker_main_wants_the_word(app):
    with pytest.raises(ValueError, match="worker sub-command"):
        app.worker_main(["-l", "INFO"])


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A package whose app is in proj.celery, two others, one of them without tasks, a module."""
    for name in ("proj", "shop", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "proj" / "celery.py").write_text(
        "from fsdf_compat import Celery\n"
        "tool = 1\n"
        "mine = Celery('proj', include=['extra'], fixups=[])\n"
        "mine.autodiscover_tasks(lambda: ['shop', 'plain', 'extra'])\n"
    )
    declare = "from proj.celery import mine\n@mine.task\ndef one(): pass\n"
    (tmp_path / "shop" / "tasks.py").write_text(declare)
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
    assert find_app("proj.celery:tool") == 1
    for wrong in ("proj.celery:nothing", "plain", "nowhere", "proj.nowhere"):
        with pytest.raises((AttributeError, ImportError)):
            find_app(wrong)


def test_tasks_of_included_and_discovered_modules_are_imported(packages):
    app = find_app("proj")
    app.loader.import_default_modules()
    assert {name for name in app.tasks if not name.startswith("celery.")} == {
        "shop.tasks.one",
        "extra.one",
    }


def test_error_inside_a_tasks_module_is_not_hidden(packages, tmp_path):
    (tmp_path / "shop" / "tasks.py").write_text("import no_such_dependency")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find_app("proj").loader.import_default_modules()


def test_packages_are_asked_of_the_fixups_where_none_are_given(app):
    class Fixup:
        def autodiscover_tasks(self):
            return ["some", "more"]

    asked = []
    app._fixups.append(Fixup())
    app.loader.autodiscover_tasks = lambda packages, related: asked.append((packages, related))
    app.autodiscover_tasks(force=True)
    assert asked == [(["some", "more"], "tasks")]


def test_importing_an_app_warns_of_nothing():
    code = "import warnings; warnings.simplefilter('error'); from fsdf_compat import Celery; Celery"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Celery(set_as_current=False, fixups=[])


@pytest.mark.parametrize("counted", [True, False])
def test_a_count_that_is_a_bound_tells_of_no_lost_worker(app, counted):
    """Of a broker without COUNTED it may have been given back so often."""

    @app.task(name="once", acks_late=True, reject_on_worker_lost=False)
    def once(): ...

    app.finalize()
    job = Job()
    job.id, job.extra, job.owner = "id", {}, SimpleNamespace(counted=counted)
    job.plan = Plan("once", "q", None, None, None)
    job.delivery = Delivery((0, 0), b"{}", deliveries=3)
    [outcome] = CelerysGate(app).judge([job], 0.0)
    assert outcome == (ends.Lost(3) if counted else None)
