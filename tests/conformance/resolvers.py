"""Names that no plan has, found by a resolver where the code runs, whatever the pool."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from found_tasks import QUEUE
from helpers import BOUND, until

from fsdf_engine import TaskFailed, asking, default_engine
from fsdf_engine import resolver as resolver_module

TROUBLE = {
    "missing": "declared on this queue$",
    "raise": "its resolver failed: ImportError: no module named 'pandas'",
    "exit": "its resolver failed: SystemExit: 3",
    "nonsense": "its resolver failed|cannot be served: ArgumentError: the resolver gave 5, which",
    "other": "its resolver gave a task of another name",
    "stray": "its resolver gave a task of another name|is one of queue 'elsewhere'",
}


class Resolvers:
    """Subclass with `mode`; `prefix` stands before the names of functions."""

    mode: str
    prefix = ""
    size = 2

    @pytest.fixture(autouse=True)
    def notes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        self.path = tmp_path / "notes"
        monkeypatch.setenv("FOUND_NOTES", str(self.path))
        monkeypatch.setenv("FOUND_PREFIX", self.prefix)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", "."]))
        return self.path

    def noted(self, start: str = "") -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line for line in lines if line.partition(" ")[2].startswith(start)]

    def asked(self, name: str) -> int:
        """Count how often the resolver was asked for a name, by a question or a child."""
        return Counter(line.partition(" ")[2] for line in self.noted())[f"resolve {name}"]

    def start(self, queue: str = QUEUE, **options: object):
        engine = default_engine()
        engine.resolver = "found_tasks:resolve"
        options = {"concurrent_num": self.size, "concurrent_mode": self.mode, **options}
        return engine.consume(engine.remote(queue, name="nobody", **options))

    def of(self, name: str, queue: str = QUEUE):
        """Return what pushes messages of a name."""
        return default_engine().remote(queue, name=name, is_using_rpc_mode=True)

    def why(self, task) -> str:
        return next(iter(task.dead_letters())).reason

    def test_unknown_names_are_found_and_run(self):
        self.start()
        known = self.of("work is_using_rpc_mode=True")
        late = self.of("work is_using_rpc_mode=True keep_failed=False")
        results = [*known.push_many((n,) for n in range(30)), late.push(99)]
        assert [result.get(BOUND) for result in results] == [*range(1, 31), 100]
        until(lambda: known.size() == (0, 0, 0, 0))
        assert len(self.noted("work")) == 31

    @pytest.mark.parametrize("name", TROUBLE)
    def test_a_resolver_in_trouble_costs_the_names_that_it_cannot_tell(self, name):
        handle = self.start()
        trouble, fine = self.of(name), self.of("work is_using_rpc_mode=True")
        trouble.push_many((n,) for n in range(3))
        assert fine.push(1).get(BOUND) == 2
        until(lambda: fine.size() == (0, 0, 0, 3))
        assert re.search(TROUBLE[name], self.why(trouble)), self.why(trouble)
        asked = self.asked(name)
        assert asked <= 2
        trouble.push(3)
        until(lambda: fine.size() == (0, 0, 0, 4))
        assert self.asked(name) == asked  # it is remembered
        until(lambda: not handle.consumer.held())

    def test_a_resolver_that_hangs_is_ended_and_the_others_go_on(self, monkeypatch):
        monkeypatch.setattr(resolver_module, "LIMIT", 0.7)
        self.start()
        fine, stuck = self.of("work is_using_rpc_mode=True"), self.of("hang")
        assert fine.push(1).get(BOUND) == 2
        stuck.push_many((n,) for n in range(3))
        until(lambda: self.asked("hang") == 1)
        results = fine.push_many((n,) for n in range(50))
        assert [result.get(BOUND) for result in results] == [*range(1, 51)]
        until(lambda: fine.size() == (0, 0, 0, 3))
        assert self.asked("hang") == asking.TRIES
        assert "its resolver failed 2 times: the run passed its limit" in self.why(stuck)
        assert fine.push(5).get(BOUND) == 6

    def test_what_is_found_has_its_own_limits_and_acknowledgement(self):
        self.start()
        limited = self.of("linger is_using_rpc_mode=True function_timeout=0.3")
        with pytest.raises(TaskFailed) as caught:
            limited.push(1).get(BOUND)
        assert caught.value.status == "timedout"
        early = self.of("work is_using_rpc_mode=True ack=early")
        assert early.push(2).get(BOUND) == 3
        handle = default_engine().handles()[0]
        [plan] = [p for p in handle.consumer.plans.values() if "early" in p.name]
        assert plan.early
        assert bool(plan.arun) == bool(self.prefix)
        until(lambda: early.size() == (0, 0, 0, 1))

    def test_pause_and_stop_give_back_what_waits(self):
        handle = self.start()
        task = self.of("wait is_using_rpc_mode=True")
        results = task.push_many((n,) for n in range(5))
        leased = 5 if self.size > 1 else 1  # the question has the only slot
        until(lambda: self.noted("resolve") and task.size().leased == leased)
        handle.pause()
        until(lambda: task.size() == (5, 0, 0, 0))
        handle.resume()
        until(lambda: task.size().leased == (5 if self.size > 1 else 0))
        handle.stop()
        assert task.size() == (5, 0, 0, 0)
        self.go()
        self.start()
        assert [result.get(BOUND) for result in results] == [*range(1, 6)]

    def go(self) -> None:
        Path(f"{self.path}.go").touch()

    def test_many_may_wait_and_leave_room_for_others(self):
        handle = self.start(prefetch=50)
        consumer = handle.consumer
        fine, task = self.of("work is_using_rpc_mode=True"), self.of("wait is_using_rpc_mode=True")
        assert fine.push(0).get(BOUND) == 1
        results = task.push_many((n,) for n in range(60))
        until(lambda: self.asked("wait is_using_rpc_mode=True"))
        if self.size > 1:
            assert fine.push(1).get(BOUND) == 2  # behind the others
        results = [*results, *task.push_many((n,) for n in range(60, 200))]
        until(lambda: consumer.held() == consumer.hard or self.size == 1)
        self.go()
        assert [result.get(BOUND) for result in results] == [*range(1, 201)]
        assert consumer.most_held <= consumer.hard
        assert len(self.noted("work")) == 201 + (self.size > 1)

    def test_one_question_of_a_process_at_a_time(self):
        queues = [f"q{n}" for n in range(3)]
        for queue in queues:
            self.start(queue)
        tasks = [self.of(f"wait is_using_rpc_mode=True function_timeout={n + 50}", queue)
                 for n, queue in enumerate(queues)]  # fmt: skip
        results = [task.push(n) for n, task in enumerate(tasks)]
        until(lambda: all(task.size().leased == 1 for task in tasks))
        until(lambda: self.noted("resolve"))
        assert len(self.noted("resolve")) == 1
        self.go()
        assert [result.get(BOUND) for result in results] == [1, 2, 3]
