"""A value or an exception whose text has no end hangs its own run, whatever the pool."""

from __future__ import annotations

import time

import hanging_tasks
import pytest
from hanging_tasks import KINDS, OPTIONS
from helpers import BOUND, until

from fsdf_engine import TaskFailed, task_deco

GRACE = 0.3


class HangingTexts:
    """Subclass with `mode`, or with the tasks."""

    mode: str
    others_wait = False  # for what hangs, because all runs share one thread

    @pytest.fixture(autouse=True)
    def release(self):
        hanging_tasks.GO.clear()
        yield
        hanging_tasks.GO.set()

    def task(self, queue, **options):
        fn = hanging_tasks.awork if self.mode == "asyncio" else hanging_tasks.work
        size = 1 if self.mode == "inline" else 2
        made = {**OPTIONS, "concurrent_mode": self.mode, "concurrent_num": size, **options}
        return task_deco(queue, **made)(fn)

    def limited(self):
        return self.task("limited", function_timeout=0.5)

    def unlimited(self):
        return self.task("unlimited")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_run_that_hangs_while_it_is_told_ends_at_its_deadline(self, kind):
        task = self.limited()
        other = task_deco("other", **OPTIONS)(lambda n: n)
        task.consume()
        other.consume()
        first, hanging = task.push("first"), task.push(kind)
        assert first.get(BOUND) == "first"
        assert [result.get(BOUND) for result in other.push_many((n,) for n in range(50))] == [
            *range(50)
        ]
        with pytest.raises(TaskFailed) as caught:
            hanging.get(BOUND)
        assert caught.value.status == "timedout"
        if self.others_wait:
            hanging_tasks.GO.set()
        results = task.push_many((f"{n}",) for n in range(50))
        assert [result.get(BOUND) for result in results] == [f"{n}" for n in range(50)]
        until(lambda: task.size() == (0, 0, 0, 1))
        assert hanging.info["status"] == "timedout"  # whatever came after

    @pytest.mark.parametrize("kind", ["text", "value"])
    def test_stop_interrupts_a_run_that_hangs_while_it_is_told(self, kind):
        task = self.unlimited()
        handle = task.consume()
        assert task.push("first").get(BOUND) == "first"
        task.push(kind)
        until(lambda: handle.pool.running())
        begin = time.monotonic()
        handle.stop(timeout=GRACE)
        assert time.monotonic() - begin < BOUND
        if not self.others_wait:
            assert task.size() == (1, 0, 0, 0)  # back in line, neither failed nor told
