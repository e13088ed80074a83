"""What is given with one call: a wrong value is an error that names it, and nothing is pushed."""

from __future__ import annotations

import pytest

from fsdf_engine import ArgumentError, task_deco

MEMORY = {"broker_kind": "memory"}


@pytest.mark.parametrize("headers", [3, "text", ["a"], 0, [], True])
def test_headers_that_are_no_mapping_are_refused_by_name(headers):
    task = task_deco("headed", **MEMORY)(lambda n: n)
    with pytest.raises(ArgumentError, match="^headers=.* is no mapping"):
        task.publish({"n": 1}, headers=headers)
    task.publish({"n": 1}, headers={})
    assert task.size().waiting == 1
