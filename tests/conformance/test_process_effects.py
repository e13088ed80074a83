"""What children report with the ends of their runs, whenever they are killed."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter

import pytest
from helpers import BOUND, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests kill by signals")


@pytest.fixture
def tasks():
    """The module, freshly imported: its tasks belong to the default engine of now."""
    sys.modules.pop("effect_tasks", None)
    return importlib.import_module("effect_tasks")


def test_child_killed_in_the_middle_of_its_report_has_reported_nothing(tasks, tmp_path):
    task, log = tasks.dies_in_its_report, tmp_path / "log"
    results = task.push_many((str(log), n) for n in range(3))
    task.consume()
    assert results[0].get(BOUND) == "0" * tasks.LARGE
    assert [result.get(BOUND) for result in results[1:]] == ["1", "2"]
    starts = Counter(log.read_text().splitlines())
    assert starts["0"] == 2
    until(lambda: task.size() == (0, 0, 0, 0))


def test_run_that_was_reported_is_not_repeated_when_its_child_is_killed(tasks, tmp_path):
    task, log = tasks.dies_after_its_report, tmp_path / "log"
    results = task.push_many((str(log), n) for n in range(20))
    task.consume()
    assert [result.get(BOUND) for result in results] == list(range(20))
    assert Counter(map(int, log.read_text().splitlines())) == Counter(range(20))
    until(lambda: task.size() == (0, 0, 0, 0))
