"""Whatever a run raises, its waiter learns the end at once, and what is kept of it is bounded."""

from __future__ import annotations

import importlib
import sys

import pytest
from helpers import BOUND, until
from odd_tasks import ERRORS, OPTIONS, Items, afail, fail

from fsdf_engine import TaskFailed, default_engine, task_deco
from fsdf_engine.outcomes import REASON, TRACE, Failed, cut, describe, text_of, trace_of

KEPT = 2 * TRACE  # bytes of a record or a dead letter: a traceback, a reason, arguments


def check(task, name):
    result = task.push(name)
    with pytest.raises(TaskFailed) as caught:
        result.get(BOUND)
    assert caught.value.status == "failed"
    body = default_engine().replies(task.options).store.read([result.task_id])[result.task_id]
    assert len(body) < KEPT
    until(lambda: task.size().dead == 1)
    [letter] = task.dead_letters()
    assert len(letter.reason) <= 2 * REASON
    assert len(letter.trace) <= TRACE + 100
    letter.reason.encode()
    letter.trace.encode()
    task.clear(["dead"])
    return caught.value


def failed_loops(caplog):
    """Return what those have logged that a user's error must not reach."""
    return [r for r in caplog.records if r.name in ("fsdf.outbox", "fsdf.pools")]


def shows_where(error):
    return "in fail" in error.traceback or "in afail" in error.traceback


@pytest.mark.parametrize("fn", [fail, afail], ids=["threads", "asyncio"])
@pytest.mark.parametrize("name", ERRORS)
def test_the_waiter_learns_of_any_error_at_once(name, fn, caplog):
    task = task_deco("odd", **OPTIONS)(fn)
    handle = task.consume()
    error = check(task, name)
    handle.stop()
    assert not failed_loops(caplog)
    hidden = ("disguised", "odd class", "hides trace", "exit", "interrupt", "end", "generator's")
    assert shows_where(error) or name in hidden


@pytest.fixture
def tasks():
    """The module, freshly imported: its tasks belong to the default engine of now."""
    sys.modules.pop("odd_tasks", None)
    return importlib.import_module("odd_tasks")


def test_the_waiter_learns_of_any_error_of_a_child_process_at_once(tasks, caplog):
    handle = tasks.in_child.consume()
    for name in ERRORS:
        check(tasks.in_child, name)
    handle.stop()
    assert not failed_loops(caplog)


def test_an_odd_value_of_a_child_process_is_told_as_a_failure(tasks):
    tasks.value_in_child.consume()
    with pytest.raises(TaskFailed, match="cannot be stored"):
        tasks.value_in_child.push("x").get(BOUND)


def test_an_odd_value_is_told_as_a_failure():
    task = task_deco("odd", **OPTIONS)(lambda name: Items(a=1))
    task.consume()
    with pytest.raises(TaskFailed, match="cannot be stored"):
        task.push("x").get(BOUND)


def test_an_error_that_hides_its_arguments_comes_back_with_them():
    task = task_deco("odd", **OPTIONS)(fail)
    task.consume()
    with pytest.raises(TaskFailed) as caught:
        task.push("args of another type").get(BOUND)
    assert type(caught.value.__cause__).__name__ == "ManyArgs"
    assert str(caught.value.__cause__) == "x"


def test_a_sink_that_fails_keeps_no_other_from_telling_the_end(monkeypatch):
    def failing(job, outcome):
        raise RuntimeError("a sink's own")

    task = task_deco("odd", **OPTIONS)(fail)
    plan = type(task).plan

    def with_another(self, watch=None):
        made = plan(self, watch)
        return made._replace(sinks=(failing, *made.sinks, failing))

    monkeypatch.setattr(type(task), "plan", with_another)
    task.consume()
    with pytest.raises(TaskFailed) as caught:
        task.push("base").get(BOUND)
    assert caught.value.kind == "odd_tasks.Base"
    until(lambda: task.size().dead == 1)
    assert task.dead_letters()[0].reason.startswith("cannot store: RuntimeError")


def test_long_texts_keep_both_ends_and_say_what_is_missing():
    text = "begin" + "x" * 10_000 + "end"
    short = cut(text, 100)
    assert short.startswith("begin")
    assert short.endswith("end")
    assert "characters" in short
    assert len(short) < 200
    assert cut("short", 100) == "short"
    assert len(text_of("y" * 10**6)) < REASON + 100
    assert len(describe(Failed(ValueError("z" * 10**6)))) < REASON + 200
    assert len(trace_of(Failed(ValueError(), "t" * 10**6))) < TRACE + 100
