"""What is pushed is what arrives: any value, any name, by position or by name."""

from __future__ import annotations

import asyncio
import gc
import inspect

import pytest
from helpers import BOUND

from fsdf_engine import ArgumentError, AsyncResult, TaskFailed, default_engine, task_deco
from fsdf_engine.contracts import Outgoing
from fsdf_engine.core.binding import Binding

MEMORY = {"broker_kind": "memory"}
LOOKALIKES = [
    {"__type__": "bytes", "__value__": "abc"},
    {"__type__": "datetime", "__value__": "tomorrow"},
    {"__type__": ["a"], "__value__": 1},
    {"__type__": "object", "__value__": [["a", 1]]},
]


@pytest.mark.parametrize("value", LOOKALIKES)
def test_a_dict_that_looks_like_a_typed_value_goes_there_and_back(value):
    @task_deco("lookalike", is_using_rpc_mode=True, **MEMORY)
    def echo(x):
        assert type(x) is dict
        return {"got": [x]}

    echo.consume()
    assert echo.push(value).get(BOUND) == {"got": [value]}
    assert echo.publish({"x": value}).get(BOUND) == {"got": [value]}


def test_publish_reads_typed_values_of_json_text():
    @task_deco("typed_text", is_using_rpc_mode=True, **MEMORY)
    def kind(x):
        return type(x).__name__

    kind.consume()
    assert (
        kind.publish('{"x": {"__type__": "date", "__value__": "2026-01-31"}}').get(BOUND) == "date"
    )
    with pytest.raises(ArgumentError, match="soon"):
        kind.publish('{"x": {"__type__": "date", "__value__": "soon"}}')


def test_who_waits_for_a_message_that_cannot_be_decoded_learns_it():
    @task_deco("undecodable", is_using_rpc_mode=True, **MEMORY)
    def work(x):
        return x

    result = work.push("here")
    [delivery] = (
        default_engine().broker("memory").subscribe("undecodable", lease=9).fetch(1, 1 << 20)
    )
    work.clear(["leased"])
    body = delivery.body.replace(b'"here"', b'{"__type__":"date","__value__":"soon"}')
    default_engine().broker("memory").publish([Outgoing("undecodable", "", body)])
    work.consume()
    with pytest.raises(TaskFailed, match="soon") as failed:
        result.get(BOUND)
    assert failed.value.status == "invalid"
    assert "'x' cannot be decoded" in work.dead_letters()[0].reason


ODD_NAMES = [
    "self",
    "args",
    "kwargs",
    "extra",
    "task_id",
    "fn",
    "timeout",
    "message",
    "queue",
    "cls",
    "id",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_parameter_may_have_any_name(name):
    scope = {}
    exec(f"def f({name}, other=0): return [{name}, other]", scope)
    task = task_deco(f"named_{name}", is_using_rpc_mode=True, **MEMORY)(scope["f"])
    assert task(**{name: 1}) == [1, 0]
    task.consume()
    results = [
        task.push(**{name: 1, "other": 2}),
        task.publish({"other": 2, name: 1}),
        task.send((), {name: 1, "other": 2}),
        asyncio.run(_apush(task, {name: 1, "other": 2})),
        *task.push_many([{name: 1, "other": 2}]),
    ]
    assert [result.get(BOUND) for result in results] == [[1, 2]] * 5


async def _apush(task, kwargs):
    return await task.apush(**kwargs)


@pytest.mark.parametrize(
    ("source", "args", "kwargs"),
    [
        ("a, b, c=3", (1, 2, 3), {}),
        ("a, b, c=3", (), {"a": 1, "b": 2, "c": 3}),
        ("a, b, c=3", (), {"c": 3, "a": 1, "b": 2}),
        ("a, b, c=3", (), {"b": 2, "a": 1}),
        ("a, b, c=3", (1,), {"b": 2}),
        ("a, b, c=3", (1,), {"c": 3, "b": 2}),
        ("a, b=2, *, c, d=4", (1,), {"c": 3}),
        ("a, b=2, *, c, d=4", (), {"d": 4, "c": 3, "a": 1}),
        ("", (), {}),
    ],
)
def test_calls_by_name_and_by_position_bind_as_the_signature_says_without_asking_it(
    monkeypatch, source, args, kwargs
):
    scope = {}
    exec(f"def f({source}): pass", scope)
    signature = inspect.signature(scope["f"])
    expected = signature.bind(*args, **kwargs).arguments
    binding = Binding(scope["f"])
    binding.bind(dict(expected), ())
    binding.signature = None  # asking it is slow
    data, leading = binding.name(args, kwargs)
    assert list(data.items()) == list(expected.items())
    assert leading == []
    arguments, named = binding.bind(data, ())
    assert signature.bind(*arguments, **named).arguments == expected


def test_push_many_returns_a_sequence_that_makes_its_results_when_asked():
    @task_deco("lazy", is_using_rpc_mode=True, **MEMORY)
    def double(n):
        return 2 * n

    before = sum(isinstance(each, AsyncResult) for each in gc.get_objects())
    results = double.push_many((n,) for n in range(1200))
    assert sum(isinstance(each, AsyncResult) for each in gc.get_objects()) <= before
    double.consume()
    assert len(results) == 1200
    assert results[-1].get(BOUND) == 2398
    assert results[1199] is results[-1]
    assert [r.get(BOUND) for r in results[3:5]] == [6, 8]
    assert len({r.task_id for r in results}) == 1200
    assert results == list(results)
    assert results == double.push_many([]) + results
    assert results != results[1:]
    assert results[7] in results
    assert repr(results).startswith(f"[<AsyncResult {results[0].task_id}>, ")
    with pytest.raises(IndexError):
        results[1200]
