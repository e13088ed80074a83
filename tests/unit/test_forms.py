"""Everything callable works as a task, or is refused at the declaration with what to do instead."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import BOUND, until

from fsdf_engine import (
    ConfigurationError,
    default_engine,
    get_consumer,
    run_consumer_with_multi_process,
    task_deco,
)

OPTIONS = {"broker_kind": "memory", "is_using_rpc_mode": True, "max_retry_times": 0}


def double(n):
    return 2 * n


async def adouble(n):
    return 2 * n


def add(a, b):
    return a + b


@dataclasses.dataclass
class Scale:
    by: int

    def __call__(self, n):
        return self.by * n

    def method(self, n):
        return self.by * n


class AsyncScale:
    async def __call__(self, n):
        return 2 * n


FORMS = {
    "function": double,
    "async function": adouble,
    "lambda": lambda n: 2 * n,
    "partial": functools.partial(add, 4),
    "partial of an async function": functools.partial(adouble),
    "partial of an async callable": functools.partial(AsyncScale()),
    "callable": Scale(2),
    "async callable": AsyncScale(),
    "bound method": Scale(2).method,
    "built-in": math.factorial,
    "static method": staticmethod(double),
    "task": task_deco("inner", broker_kind="memory")(double),
}


@pytest.mark.parametrize("fn", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("mode", [None, "processes"])
def test_every_form_can_be_pushed_and_runs(fn, mode):
    task = task_deco("form", **OPTIONS)(fn)
    result = task.push(4)
    many = task.push_many([(4,)])
    assert repr(task).endswith("on queue 'form'>")
    if mode is None:
        task.consume()
        expected = 24 if fn is math.factorial else 8
        assert [result.get(BOUND), many[0].get(BOUND)] == [expected] * 2


def generator(n):
    yield n


async def async_generator(n):
    yield n


@functools.wraps(generator)
def wrapper(*args):
    return generator(*args)


class Generates:
    def __call__(self, n):
        yield n

    def method(self, n):
        yield n


REFUSED = {
    "generator": (generator, "generator is a generator function.*goes through"),
    "async generator": (async_generator, "async_generator is a generator function"),
    "partial of one": (functools.partial(generator, 1), "is a generator function"),
    "one behind wraps": (wrapper, "is a generator function"),
    "one behind both": (functools.partial(wrapper), "is a generator function"),
    "callable that is one": (Generates(), r"Generates.__call__ is a generator function"),
    "method that is one": (Generates().method, "is a generator function"),
    "static method that is one": (staticmethod(generator), "is a generator function"),
    "context manager": (contextlib.contextmanager(generator), "is a generator function"),
    "class": (Scale, "Scale is a class; decorate a function"),
    "built-in without parameters to read": (max, r"max does not tell.*def f\(a, b\)"),
    "text": ("double", "is no function"),
}


@pytest.mark.parametrize(("fn", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_run_is_refused_at_the_declaration(fn, said):
    with pytest.raises(ConfigurationError, match=said):
        task_deco("refused", **OPTIONS)(fn)
    with pytest.raises(ConfigurationError, match=said):
        get_consumer("refused", consuming_function=fn, **OPTIONS)
    assert default_engine().tasks() == []


def test_a_generator_that_a_function_returns_is_no_success():
    async def coroutine(n):
        return generator(n)

    for fn in (lambda n: generator(n), lambda n: async_generator(n), coroutine):
        options = {"broker_kind": "memory", "max_retry_times": 0}
        task = task_deco(f"returned {fn}", **options)(fn)
        task.push(3)
        task.consume()
        until(task.dead_letters)
        assert "the task returned" in task.dead_letters()[0].reason


class Shelf:
    label = "shelf"

    @classmethod
    @task_deco("below_classmethod", **OPTIONS)
    def below(cls, n):
        return [cls.label, n]

    @task_deco("above_classmethod", **OPTIONS)
    @classmethod
    def above(cls, n):
        return [cls.label, n]

    @staticmethod
    @task_deco("below_staticmethod", **OPTIONS)
    def static_below(n):
        return 2 * n

    @task_deco("above_staticmethod", **OPTIONS)
    @staticmethod
    def static_above(n):
        return 2 * n

    @task_deco("method", **OPTIONS)
    def method(self, n):
        return [self.label, n]


class Box(Shelf):
    label = "box"


@pytest.fixture
def declared():
    """The tasks of the class above, in the engine of this test."""
    engine = default_engine()
    for attribute in ("below", "above", "static_below", "static_above", "method"):
        found = vars(Shelf)[attribute]
        task = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
        task._self_engine, task._self_epoch = engine, None
        engine._tasks.setdefault(engine._key(task), {})[""] = task


@pytest.mark.parametrize("name", ["below", "above"])
def test_class_method_is_a_task_in_both_orders(declared, name):
    method = getattr(Shelf, name)
    assert method(1) == getattr(Shelf(), name)(1) == ["shelf", 1]
    assert getattr(Box, name)(1) == ["box", 1]
    results = [method.push(2), method.push(n=3), getattr(Box(), name).push(4)]
    method.consume()
    assert [r.get(BOUND) for r in results] == [["shelf", 2], ["shelf", 3], ["shelf", 4]]


@pytest.mark.parametrize("name", ["static_below", "static_above"])
def test_static_method_is_a_task_in_both_orders(declared, name):
    method = getattr(Shelf, name)
    assert method(1) == getattr(Shelf(), name)(1) == 2
    results = [method.push(2), getattr(Shelf(), name).push(n=3)]
    method.consume()
    assert [r.get(BOUND) for r in results] == [4, 6]


def test_class_method_of_a_local_class_is_a_task():
    class Local:
        @task_deco("local", **OPTIONS)
        @classmethod
        def make(cls, n):
            return [cls.__name__, n]

    result = Local.make.push(1)
    Local.make.consume()
    assert result.get(BOUND) == ["Local", 1]


def test_a_plain_method_can_be_called_and_says_how_to_make_it_a_task(declared):
    shelf = Shelf()
    assert shelf.method(1) == ["shelf", 1]
    said = r"no message can carry its `self`: .*def method\(\.\.\.\): return Shelf\(\.\.\.\).method"
    for use in [
        lambda: shelf.method.push(1),
        lambda: Shelf.method.push(shelf, 1),
        lambda: Shelf.method.push_many([(1,)]),
        lambda: Shelf.method.publish({"n": 1}),
        shelf.method.consume,
    ]:
        with pytest.raises(ConfigurationError, match=said):
            use()
    assert Shelf.method.size().waiting == 0


def test_an_object_that_has_every_attribute_is_refused_in_time():
    class Remote:
        def __getattr__(self, name):
            return Remote()

        def __call__(self, *args):
            return 1

    with pytest.raises(ConfigurationError):
        task_deco("remote", **OPTIONS)(Remote())


def test_annotations_of_callables_and_partials_convert_too():
    class Later:
        def __call__(self, day: datetime.date) -> str:
            return day.strftime("%A")

    def weekday(_: int, day: datetime.date) -> str:
        return day.strftime("%A")

    for fn in (Later(), functools.partial(weekday, 0)):
        task = task_deco(f"days {fn}", **OPTIONS)(fn)
        task.consume()
        assert task.publish({"day": "2026-11-26"}).get(BOUND) == "Thursday"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (functools.partial(add, 1), functools.partial(add, 2)),
        (lambda n: 1, lambda n: 2),
        (Scale(1), Scale(2)),
        (Scale(1).method, Scale(2).method),
    ],
    ids=["partials", "lambdas", "callables", "methods"],
)
def test_two_of_one_form_on_one_queue_are_told_apart(first, second):
    if first.__class__.__name__ == "function":  # of one line, as a formatter would not leave them
        second = eval("\n\nlambda n: 2")
    task_deco("apart", **OPTIONS)(first)
    task_deco("apart", **OPTIONS)(first)
    with pytest.raises(ConfigurationError, match="give each"):
        task_deco("apart", **OPTIONS)(second)


# ---------------------------------------------------------------- other processes

MODULE = """
import functools
from helpers import BOUND
import elsewhere
from fsdf_engine import task_deco

options = dict(is_using_rpc_mode=True, max_retry_times=0, concurrent_num=1)
options["concurrent_mode"] = "processes"

class Scale:
    def __init__(self, by): self.by = by
    def __call__(self, n): return self.by * n
    def method(self, n): return self.by * n
    @task_deco("class", **options)
    @classmethod
    def make(cls, n): return cls(2)(n)

def declare(name):
    return task_deco(name, **options)(lambda n: 2 * n)

tasks = {
    "in a function": declare("in a function"),
    "imported": task_deco("imported", **options)(elsewhere.double),
    "closure": task_deco("closure", **options)(elsewhere.closure(2)),
    "partial": task_deco("partial", **options)(functools.partial(elsewhere.times, 2)),
    "callable": task_deco("callable", **options)(Scale(2)),
    "bound": task_deco("bound", **options)(Scale(2).method),
    "lambda": task_deco("lambda", **options)(lambda n: 2 * n),
    "built-in": task_deco("built-in", **options)(abs),
    "class": Scale.make,
}
"""
ELSEWHERE = """
def double(n): return 2 * n
def times(by, n): return by * n
def closure(by):
    def inner(n): return by * n
    return inner
"""
PROGRAM = """
import sys
import declared
from fsdf_engine import run_consumer_with_multi_process
from helpers import BOUND

if __name__ == "__main__":
    for name in sys.argv[1:]:
        task = declared.tasks[name]
        handle = task.consume()
        print(name, task.push(4).get(BOUND))
        handle.stop()
    supervisor = run_consumer_with_multi_process(list(declared.tasks.values()))
    print([declared.tasks[name].push(3).get(BOUND) for name in sys.argv[1:]])
    supervisor.stop()
"""


def test_tasks_are_found_by_children_whatever_their_functions_are(tmp_path):
    """In the module that declares them, which need not be the one that has the function."""
    names = ["in a function", "imported", "closure", "partial", "callable", "bound", "lambda"]
    names += ["built-in", "class"]
    for name, text in [("declared", MODULE), ("elsewhere", ELSEWHERE), ("program", PROGRAM)]:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), *names],
        capture_output=True, text=True, timeout=120, env=environment(tmp_path),
    )  # fmt: skip
    expected = [f"{name} {4 if name == 'built-in' else 8}" for name in names]
    expected.append(str([3 if name == "built-in" else 6 for name in names]))
    assert done.stdout.splitlines() == expected, done.stderr


def environment(folder):
    tests = Path(__file__).parent.parent
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
        "FSDF_SQLITE_PATH": str(folder / "queue.sqlite"),
    }


def test_what_is_declared_in_a_function_is_refused_for_processes():
    def local(n):
        return n

    task = task_deco("local_function", **OPTIONS)(local)
    with pytest.raises(ConfigurationError, match="declared inside a function"):
        run_consumer_with_multi_process(task)
