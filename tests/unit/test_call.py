"""What is given with one call: a wrong value is an error that names it, and nothing is pushed."""

from __future__ import annotations

import inspect

import pytest

from fsdf_engine import ArgumentError, task_deco
from fsdf_engine.call import Control
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
