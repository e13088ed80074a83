"""The failure of a chord: where its errbacks are called, and when."""

from __future__ import annotations

import pytest
from helpers import BOUND, until

from fsdf_compat import chord
from fsdf_compat.exceptions import ChordError

TASKS = """
@app.task
def add(x, y):
    return x + y

@app.task
def fail():
    raise ValueError("no")

@app.task
def total(values):
    return sum(values)

@app.task
def told(request, exc, traceback):
    here = os.getpid(), type(exc).__name__, repr(exc.__cause__)
    note(json.dumps([request.id, *here]))
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_errback_of_a_chord_is_called_in_the_pool_before_the_failure_is_told(
    redis_project, pool
):
    proj = redis_project.write(TASKS)
    worker = redis_project.worker("-P", pool, "-c", "2", "-Q", "celery,more")
    body = proj.total.s().on_error(proj.told.s()).set(task_id="the-body")
    result = chord([proj.add.s(1, 1), proj.fail.s()], body).apply_async()
    with pytest.raises(ChordError, match=r"ValueError\('no'\)"):
        result.get(timeout=BOUND, follow_parents=False)
    ((id, pid, error, cause),) = map(proj.json.loads, redis_project.notes())
    assert (id, error, cause) == ("the-body", "ChordError", "ValueError('no')")
    assert (pid == worker.process.pid) == (pool == "threads")
    worker.says("Task celery.chord_error[")


def test_a_chord_learns_that_one_in_it_has_failed_whose_errback_is_called_in_the_pool(
    redis_project,
):
    proj = redis_project.write(TASKS)
    redis_project.worker("-P", "prefork", "-c", "2")
    inner = chord([proj.fail.s(), proj.add.s(1, 1)], proj.total.s().on_error(proj.told.s()))
    result = chord([inner, proj.add.s(1, 1)], proj.total.s()).apply_async()
    with pytest.raises(ChordError, match=r"ValueError\('no'\)"):
        result.get(timeout=BOUND, follow_parents=False)
    until(lambda: len(redis_project.notes()) == 1)
