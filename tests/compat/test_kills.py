"""Workers that die between two steps of a run's end: everybody learns of one end."""

from __future__ import annotations

import signal

import pytest

from fsdf_compat.exceptions import ChordError

PROJECT = """
import os, signal
from fsdf_compat import chain, chord, group
from fsdf_compat.signals import task_failure
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.stores.redis_groups import RedisGroups

app.conf.task_acks_late = os.environ.get("ACK") == "late"

def deadly(store, step):
    call = getattr(store, step)
    def die(self, batch, *given):
        if "DIE_AFTER" in os.environ:
            call(self, batch, *given)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(store, step, die)

if step := os.environ.get("DIE"):
    deadly(RedisGroups if step in ("add", "close") else RedisStore, step)

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
    return sum(values)
"""
LEASE = "1.0"


@pytest.fixture
def proj(redis_project):
    return redis_project.write(PROJECT)


@pytest.fixture
def die(redis_project):
    """`die(ack, step)`: a worker dies at a step, and the next one works."""

    def die(ack, step, **more):
        dying = redis_project.worker(FSDF_LEASE=LEASE, ACK=ack, DIE=step, **more)
        assert dying.ends() == -signal.SIGKILL
        return redis_project.worker(FSDF_LEASE=LEASE, ACK=ack)

    return die


@pytest.mark.parametrize("ack", ["early", "late"])
def test_a_chord_learns_of_what_ended_with_a_stored_result(proj, die, redis_project, ack):
    sent = proj.chord([proj.add.s(2, 1)], proj.total.s()).delay()
    die(ack, "add")
    assert sent.get(timeout=20) == 3
    assert redis_project.notes() == []


@pytest.mark.parametrize("ack", ["early", "late"])
def test_a_chord_learns_of_a_chain_in_it_that_has_failed(proj, die, ack):
    sent = proj.chord([proj.chain(proj.fail.s(1), proj.add.s(1))], proj.total.s()).delay()
    die(ack, "add")
    with pytest.raises(ChordError, match="ValueError"):
        proj.app.AsyncResult(sent.id).get(timeout=20)
