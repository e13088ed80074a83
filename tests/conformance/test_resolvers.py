"""Resolvers in a plain process; under gevent and eventlet in processes of their own."""

from __future__ import annotations

import os
import signal

import pytest
from conformance.resolvers import Resolvers
from green import LIBRARIES, run_patched
from helpers import BOUND, until

from fsdf_engine import default_engine
from fsdf_engine.errors import ConfigurationError


class TestThreads(Resolvers):
    mode = "threads"


class TestOneThread(Resolvers):
    mode = "inline"
    size = 1


class TestAsyncio(Resolvers):
    mode, prefix = "asyncio", "a"


@pytest.mark.skipif(os.name != "posix", reason="children are killed by signals")
class TestProcesses(Resolvers):
    mode = "processes"

    def test_parent_imports_nothing_and_every_child_asks_for_itself(self):
        handle = self.start()
        task = self.of("work is_using_rpc_mode=True")
        assert task.push(1).get(BOUND) == 2
        assert all(line.partition(" ")[0] != str(os.getpid()) for line in self.noted())
        for pid in handle.pool.processes():
            os.kill(pid, signal.SIGKILL)
        assert task.push(2).get(BOUND) == 3
        assert len({line.partition(" ")[0] for line in self.noted("resolve")}) > 1

    def test_a_child_that_dies_of_the_question_once_is_asked_again(self):
        self.start()
        task = self.of("die_once is_using_rpc_mode=True")
        assert task.push(1).get(BOUND) == 2
        until(lambda: task.size() == (0, 0, 0, 0))

    def test_a_name_that_kills_its_children_is_unknown(self):
        self.start()
        fine, task = self.of("work is_using_rpc_mode=True"), self.of("die")
        task.push_many((n,) for n in range(3))
        assert fine.push(1).get(BOUND) == 2
        until(lambda: task.size() == (0, 0, 0, 3))
        assert "its resolver failed 2 times: its child process died" in self.why(task)
        assert self.asked("die") == 2

    def test_a_child_that_is_killed_while_it_is_asked_loses_nothing(self):
        self.start()
        task = self.of("wait is_using_rpc_mode=True")
        results = task.push_many((n,) for n in range(10))
        until(lambda: self.noted("resolve wait"))
        os.kill(int(self.noted("resolve wait")[0].partition(" ")[0]), signal.SIGKILL)
        until(lambda: len(self.noted("resolve wait")) == 2)
        self.go()
        assert [result.get(BOUND) for result in results] == [*range(1, 11)]
        until(lambda: task.size() == (0, 0, 0, 0))

    def test_a_resolver_that_children_cannot_find_is_refused(self):
        engine = default_engine()
        engine.resolver = lambda queue, name: None
        with pytest.raises(ConfigurationError, match="cannot find the resolver"):
            engine.consume(engine.remote("q", name="n", concurrent_mode="processes"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_under(library):
    run_patched(library, "tests/conformance/patched_resolvers.py")
