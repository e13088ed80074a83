"""Workers that die between two steps of a run's end: everybody learns of one end."""

from __future__ import annotations

import signal

import pytest
import redis
from helpers import until

from fsdf_compat.exceptions import ChordError, WorkerLostError

PROJECT = """
import os, signal
from fsdf_compat import chain, chord, group
from fsdf_compat.signals import task_failure
from fsdf_engine.stores.redis_groups import RedisGroups
from fsdf_engine.stores.redis_marks import RedisMarks

app.conf.task_acks_late = os.environ.get("ACK") == "late"

def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)

# a step that is not taken: results are stored before chords learn of them, the messages of chords
# are sent before these are closed, marks of what was acknowledged are deleted when it has ended
match os.environ.get("DIE"):
    case "add": RedisGroups.add = die
    case "close": RedisGroups.close = die
    case "delete": RedisMarks.delete = die

@task_failure.connect
def failed(sender, task_id, **more):
    note(f"{task_id} has failed")

@app.task
def add(x, y):
    return x + y

@app.task
def fail(x):
    raise ValueError(x)

@app.task
def total(values):
    note("total")
    if os.environ.get("DIE") == "run":
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(values)

@app.task(ignore_result=True)
def quiet():
    pass

@app.task(bind=True, max_retries=1)
def flaky(self):
    note(f"attempt {self.request.retries}")
    if self.request.retries == 0:
        raise self.retry(countdown=4)
    return 5

@app.task(bind=True)
def swap(self, countdown):
    note("swap")
    raise self.replace(chord([add.s(2, 3).set(countdown=countdown)], total.s()))
"""
LEASE = "1.0"


def adopted(url):
    """Say whether no mark is left of what was acknowledged and may have no end."""
    with redis.Redis.from_url(url) as client:
        return not client.exists("fsdf:marks:watched")


@pytest.fixture
def proj(redis_project):
    return redis_project.write(PROJECT)


@pytest.fixture
def die(redis_project):
    """`die(ack, step)`: a worker dies at a step, and the next one works."""

    def die(ack, step, **more):
        dying = redis_project.start(FSDF_LEASE=LEASE, ACK=ack, DIE=step, **more)
        assert dying.ends() == -signal.SIGKILL
        return redis_project.worker(FSDF_LEASE=LEASE, ACK=ack)

    return die


@pytest.mark.parametrize("ack", ["early", "late"])
def test_a_chord_learns_of_what_ended_with_a_stored_result(proj, die, redis_project, ack):
    sent = proj.chord([proj.add.s(2, 1)], proj.total.s()).delay()
    die(ack, "add")
    assert sent.get(timeout=20) == 3
    assert redis_project.notes() == ["total"]


@pytest.mark.parametrize("ack", ["early", "late"])
def test_a_chord_learns_of_a_chain_in_it_that_has_failed(proj, die, ack):
    sent = proj.chord([proj.chain(proj.fail.s(1), proj.add.s(1))], proj.total.s()).delay()
    die(ack, "add")
    with pytest.raises(ChordError, match="ValueError"):
        proj.app.AsyncResult(sent.id).get(timeout=20)


def test_the_body_of_a_chord_runs_twice_where_its_worker_died_before_closing_it(
    proj, die, redis_project
):
    sent = proj.chord([proj.add.s(2, 1)], proj.total.s()).delay()
    die("late", "close")
    # and once more, if who died had begun with the body that it had just published
    until(lambda: len(redis_project.notes()) >= 2)
    assert sent.get(timeout=20) == 3
    assert set(redis_project.notes()) == {"total"}


@pytest.mark.parametrize("name", ["add", "quiet"])
def test_what_ended_before_its_worker_died_has_not_failed(proj, die, redis_project, name):
    task = getattr(proj, name)
    task.apply_async((1, 2) if name == "add" else ())
    die("early", "delete")
    until(lambda: adopted(redis_project.url))
    assert redis_project.notes() == []


@pytest.mark.parametrize(("name", "args", "notes"), [
    ("flaky", (), ["attempt 0", "attempt 1"]), ("swap", (4,), ["swap", "total"]),
])  # fmt: skip
def test_what_goes_on_after_its_worker_died_is_not_lost(
    proj, die, redis_project, name, args, notes
):
    sent = getattr(proj, name).delay(*args)
    die("early", "delete")
    until(lambda: adopted(redis_project.url))
    assert sent.get(timeout=20) == 5
    assert redis_project.notes() == notes


def test_what_a_run_has_gone_on_as_is_lost_with_its_own_worker(proj, die):
    sent = proj.swap.delay(0)
    die("early", "run")
    assert isinstance(sent.get(timeout=20, propagate=False), WorkerLostError)
