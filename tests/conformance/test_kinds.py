"""What queues and kinds of functions share: one pool of child processes, one worker."""

from __future__ import annotations

import importlib
import sys

import pytest
from helpers import BOUND, until

from fsdf_engine.engine import default_engine


@pytest.fixture
def tasks():
    """The module of the tasks, freshly imported."""
    sys.modules.pop("kind_tasks", None)
    yield importlib.import_module("kind_tasks")
    del sys.modules["kind_tasks"]


@pytest.fixture
def children(tasks):
    """A pool of two child processes, for several queues."""
    pool = default_engine().new_pool("processes", 2, preload=["kind_tasks"])
    yield pool
    default_engine().stop()
    assert not pool.close(BOUND)


def test_queues_that_share_child_processes_hold_their_number_and_one_prefetch(tasks, children):
    engine, peaks = default_engine(), []
    both = [tasks.one, tasks.two]
    results = [task.push_many([(n,) for n in range(100)]) for task in both]
    handles = [engine.consume(task, pool=children) for task in both]

    def all_ran():
        peaks.append(sum(handle.consumer.held() for handle in handles))
        return all(task.size()[:3] == (0, 0, 0) for task in both)

    until(all_ran, 3 * BOUND)
    for answers in results:
        assert [answer.get(BOUND) for answer in answers] == list(range(100))
    assert max(peaks) <= 2 + 4


@pytest.mark.parametrize("first", ["plain", "coroutine"])
def test_child_processes_run_both_kinds_of_a_queue(tasks, first):
    handle = getattr(tasks, first).consume()
    results = [
        (kind, getattr(tasks, kind).push(n)) for n in range(20) for kind in ("plain", "coroutine")
    ]
    for n, (kind, result) in enumerate(results):
        assert list(result.get(2 * BOUND)) == [n // 2, kind]
    assert handle.pool.size == 2
