"""Decorated functions: what they take can be pushed, and travels by name where it has one."""

from __future__ import annotations

import datetime
import functools
import json

import pytest
from helpers import BOUND

from fsdf_engine import ArgumentError, task_deco
from fsdf_engine.core.binding import Binding

OPTIONS = {"broker_kind": "memory", "is_using_rpc_mode": True, "max_retry_times": 0}


def wrap(make):
    """Return a decorator whose wrapper `make(fn)` keeps the function's looks."""
    return lambda fn: functools.wraps(fn)(make(fn))


@wrap
def timed(fn):
    return lambda *args, **kwargs: fn(*args, **kwargs)


@wrap
def with_session(fn):
    return lambda *args, **kwargs: fn("SESSION", *args, **kwargs)


@wrap
def with_session_by_name(fn):
    return lambda *args, **kwargs: fn(*args, session="SESSION", **kwargs)


@wrap
def with_tenant(fn):
    def wrapper(*args, tenant="none", **kwargs):
        return [tenant, fn(*args, **kwargs)]

    return wrapper


@wrap
def with_first(fn):
    return lambda x, *args, **kwargs: fn(x, *args, **kwargs)


@wrap
def swapped(fn):
    return lambda b, a: fn(a, b)


@wrap
def counted(fn):
    def wrapper(number=0, *args, **kwargs):
        return [number, fn(*args, **kwargs)]

    return wrapper


@wrap
def reading(fn):
    return lambda *args, **kwargs: [kwargs["y"], *fn(*args, **kwargs)]


def pair(x, y=0):
    return [x, y]


def save(session, user):
    return [session, user]


def many(session, *users, note=""):
    return [session, *users, note]


def optional(session=None, user=None):
    return [session, user]


CALLS = [  # the decorated function, a call of it, what travels
    (timed(pair), (1, 2), {}, {"x": 1, "y": 2}),
    (timed(pair), (1,), {"y": 2}, {"x": 1, "y": 2}),
    (timed(timed(pair)), (1,), {}, {"args": [1]}),
    (timed(pair), (), {"x": 1}, {"x": 1}),
    (functools.lru_cache(pair), (1, 2), {}, {"x": 1, "y": 2}),
    (functools.lru_cache(pair), (1,), {}, {"x": 1}),
    (with_first(pair), (1, 2), {}, {"x": 1, "y": 2}),
    (with_tenant(pair), (1, 2), {"tenant": "t"}, {"x": 1, "y": 2, "tenant": "t"}),
    (with_tenant(pair), (1,), {}, {"args": [1]}),
    (reading(pair), (), {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (swapped(lambda a, b: [a, b]), (1, 2), {}, {"b": 1, "a": 2}),
    (swapped(lambda a, b: [a, b]), (), {"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (counted(pair), (5, 1), {"y": 2}, {"number": 5, "args": [1], "y": 2}),
    (counted(pair), (), {"x": 1}, {"x": 1}),
    (with_session(save), (7,), {}, {"args": [7]}),
    (with_session(save), (), {"user": 7}, {"user": 7}),
    (timed(with_session(save)), (7,), {}, {"args": [7]}),
    (with_session(many), (1, 2), {"note": "n"}, {"session": 1, "users": [2], "note": "n"}),
    (with_session(many), (), {"note": "n"}, {"note": "n"}),
    (with_session(many), (1,), {}, {"args": [1]}),
    (with_session(optional), (7,), {}, {"args": [7]}),
    (with_session(optional), (), {"user": 7}, {"user": 7}),
    (with_session_by_name(lambda user, *, session: [session, user]), (7,), {}, {"args": [7]}),
    (functools.partial(with_session(save), user=7), (), {}, {}),
    (functools.partial(timed(pair), 1), (2,), {}, {"y": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "kwargs", "travels"), CALLS)
def test_what_the_decorated_function_takes_runs_as_a_call_of_it_does(fn, args, kwargs, travels):
    task = task_deco("decorated", **OPTIONS)(fn)
    results = [task.push(*args, **kwargs)]
    if not args:
        results.append(task.publish(json.dumps(kwargs)))
    task.consume()
    assert [result.get(BOUND) for result in results] == [fn(*args, **kwargs)] * len(results)
    data, unnamed = Binding(fn).name(args, kwargs)
    assert {**data, **({"args": unnamed} if unnamed else {})} == travels


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [((1, 2, 3), {}, "too many"), ((1,), {"z": 1}, "'z'"), ((1,), {"x": 1}, "'x'")],
)
@pytest.mark.parametrize("decorator", [timed, with_session, with_first])
def test_a_call_that_no_wrapper_can_mend_fails_at_push(decorator, args, kwargs, said):
    task = task_deco("wrong", **OPTIONS)(decorator(pair))
    with pytest.raises(ArgumentError, match=said):
        task.push(*args, **kwargs)
    assert task.size().waiting == 0


def test_annotations_of_a_decorated_function_convert():
    @timed
    def weekday(day: datetime.date) -> str:
        return day.strftime("%A")

    task = task_deco("weekdays", **OPTIONS)(weekday)
    task.consume()
    assert task.publish({"day": "2026-11-26"}).get(BOUND) == "Thursday"
    assert task.push(datetime.date(2026, 11, 26)).get(BOUND) == "Thursday"
