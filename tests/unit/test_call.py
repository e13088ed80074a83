"""What is given with one call: a wrong value is an error that names it, and nothing is pushed."""

from __future__ import annotations

import asyncio
import inspect
import math
from datetime import timedelta

import pytest

from fsdf_engine import ArgumentError, ResultTimeout, default_engine, task_deco
from fsdf_engine.call import Control
from fsdf_engine.errors import LARGEST
from fsdf_engine.task import GROUP, Task

MEMORY = {"broker_kind": "memory"}


@pytest.mark.parametrize("headers", [3, "text", ["a"], 0, [], True])
def test_headers_that_are_no_mapping_are_refused_by_name(headers):
    task = task_deco("headed", **MEMORY)(lambda n: n)
    with pytest.raises(ArgumentError, match="^headers=.* is no mapping"):
        task.publish({"n": 1}, headers=headers)
    task.publish({"n": 1}, headers={})
    assert task.size().waiting == 1


@pytest.mark.parametrize("wrong", [("x", "y"), {"m": 1}, (object(),), 5])
@pytest.mark.parametrize("place", [0, 1, 700])
def test_which_of_many_calls_does_not_fit_is_told_by_its_place(wrong, place):
    task = task_deco("many", joins_groups=True, **MEMORY)(lambda n: n)
    then = task_deco("after", **MEMORY)(lambda values: values)
    calls = [(n,) for n in range(900)]
    calls[place] = wrong
    with pytest.raises(ArgumentError, match=rf"^calls\[{place}\]: ") as told:
        task.push_many(calls)
    assert isinstance(told.value.__cause__, ArgumentError)
    assert task.size().waiting == place // GROUP * GROUP, "the groups before it are stored"
    with pytest.raises(ArgumentError, match=rf"^calls\[{place}\]: "):
        task.push_group(calls, then)


def test_help_of_publish_has_every_option_of_one_call():
    text = inspect.getdoc(Task.publish)
    assert [name for name in Control.__annotations__ if f"`{name}`" not in text] == []


ENDS = (
    lambda task, timeout: task.push(1).get(timeout),
    lambda task, timeout: asyncio.run(task.push(1).aget(timeout)),
    lambda task, timeout: task.join(timeout),
    lambda task, timeout: task.consume().join(timeout),
)


@pytest.mark.parametrize("end", ENDS, ids=["get", "aget", "join", "handle"])
@pytest.mark.parametrize("timeout", ["5", math.nan, math.inf, 10**400, [1], True])
def test_timeout_that_is_no_duration_is_refused_by_name(end, timeout):
    task = task_deco("waited", is_using_rpc_mode=True, **MEMORY)(lambda n: n)
    with pytest.raises(ArgumentError, match="^timeout=.*: give a timedelta, or seconds"):
        end(task, timeout)


@pytest.mark.parametrize("timeout", [0.01, 0, -1, timedelta(milliseconds=10), timedelta(-1)])
def test_timeout_may_be_a_timedelta_and_may_be_over(timeout):
    task = task_deco("waited", is_using_rpc_mode=True, **MEMORY)(lambda n: n)
    for get in ENDS[:2]:
        with pytest.raises(ResultTimeout):
            get(task, timeout)
    assert not task.join(timeout)
    assert not (handle := task.consume()).join(timeout)
    handle.stop()


@pytest.mark.parametrize("timeout", [None, LARGEST, timedelta.max, timedelta(days=1)])
def test_timeout_may_be_longer_than_a_lock_can_wait(timeout):
    task = task_deco("waited", is_using_rpc_mode=True, **MEMORY)(lambda n: n)
    handle = task.consume()
    assert [get(task, timeout) for get in ENDS[:2]] == [1, 1]
    assert default_engine().result(task.push(2).task_id, task.options).get(timeout) == 2
    assert task.join(timeout)
    handle.stop()
    assert handle.join(timeout)
