"""Limits and interrupts of runs in the children of a process pool."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

import limited_tasks
import psutil
import pytest
from helpers import BOUND, until
from limited_tasks import QUEUE, Own
from process_tasks import give_value

from fsdf_engine.contracts import Delivery, Job
from fsdf_engine.core.telling import RemoteError
from fsdf_engine.errors import SoftTimeLimit
from fsdf_engine.limits import limits_of
from fsdf_engine.message import FLAT
from fsdf_engine.outcomes import SUCCEEDED, Failed, Interrupted, TimedOut
from fsdf_engine.pools import pool_child, processes
from fsdf_engine.pools.processes import ProcessPool
from fsdf_engine.testing.runs import Records

pytestmark = pytest.mark.skipif(os.name != "posix", reason="children are told by signals")
SIGNALS = int(os.environ.get("FSDF_TEST_SIGNALS", "20000"))


class Outbox(Records):
    """Notes what is committed, too."""

    def __init__(self):
        super().__init__()
        self.effects, self.go = [], threading.Event()
        self.go.set()

    def commit(self, job, effects):
        assert self.go.wait(BOUND)
        self.effects += effects

    def put(self, job):
        give_value(job)
        super().put(job)

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.jobs) >= count, BOUND)
        return self.jobs


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
def pool():
    pool = ProcessPool(1, resolve="limited_tasks:resolve")
    yield pool
    for job in pool.close(0.0):
        pool.interrupt(job, Interrupted(), kill=True)
    pool.close(BOUND)


@pytest.fixture
def submit(pool, outbox):
    """`submit(task, limits, ...)` hands one job over."""

    def submit(task, limits=(0, 0), *, nth=0, timeout=0.0, soft=0.0, **arguments):
        job = Job()
        job.plan = limited_tasks.resolve(QUEUE, task, timeout, soft)
        job.owner, job.id, job.codec, job.kept = outbox, f"id-{nth}", FLAT, {}
        extra = {"task_id": job.id, "limits": limits}
        job.delivery = Delivery((0, nth), json.dumps({**arguments, "extra": extra}).encode())
        job.published_at, job.attempt = 0.0, 0
        job.acked, job.pushes, job.extra = False, None, extra
        job.claims = [None] if any(limits_of(job)) else None
        pool.submit([job])
        return job

    return submit


def test_soft_limit_is_raised_in_the_run_and_costs_no_child(pool, submit, outbox, tmp_path):
    log = tmp_path / "log"
    submit("noop")
    outbox.wait(1)
    before = pool.processes()
    jobs = [
        submit("tidy", [0.3, 60], path=str(log)),
        submit("tidy", soft=0.3, path=str(log)),
        submit("a_tidy", [0.3, 0], path=str(log)),
    ]
    outbox.wait(4)
    assert lines(log) == ["started", "tidied"] * 3
    assert {job.outcome for job in jobs} == {SUCCEEDED}
    assert pool.processes() == before


@pytest.mark.parametrize("task", ["held", "a_held"])
def test_soft_limit_that_is_not_caught_fails_the_run(submit, outbox, tmp_path, task):
    job = submit(task, [0.3, None], path=str(tmp_path / "log"))
    outbox.wait(1)
    assert type(job.outcome) is Failed
    assert type(job.outcome.error).__name__ == "SoftTimeLimit"
    assert f"in {task}" in job.outcome.trace


def test_hard_limit_kills_what_outlives_its_soft_one(pool, submit, outbox, tmp_path):
    log = tmp_path / "log"
    job = submit("tidy_for_ever", [0.3, 0.8], path=str(log))
    outbox.wait(1)
    assert job.outcome == TimedOut(0.8)
    assert lines(log) == ["started", "tidied"]
    computes = submit("compute", [0.5, 0.8], timeout=60.0)
    outbox.wait(2)
    assert computes.outcome == TimedOut(0.8)


def test_each_attempt_in_place_has_limits_of_its_own(submit, outbox, tmp_path):
    log = tmp_path / "log"
    job = submit("three_times", [0.3, 0], path=str(log))
    outbox.wait(1)
    assert type(job.outcome.error).__name__ == "SoftTimeLimit"
    assert lines(log) == ["started"] * 3
    assert job.attempt == 2


def test_wait_for_a_retry_is_no_part_of_an_attempt(submit, outbox):
    job = submit("retry_once", [0.4, 0.5])
    outbox.wait(1)
    assert job.outcome == SUCCEEDED


def test_interrupt_raises_the_class_that_it_is_given(pool, submit, outbox, tmp_path):
    class Unknown(Exception):
        """One that the child has not."""

    for n, error in enumerate((Own("lost on the way"), Interrupted(), Unknown())):
        log = tmp_path / str(n)
        job = submit("held", path=str(log))
        until(lambda log=log: lines(log))
        assert pool.interrupt(job, error)
        outbox.wait(n + 1)
        assert type(job.outcome) is Failed
    own, stopped, unknown = (job.outcome.error for job in outbox.jobs)
    assert type(own) is Own
    assert type(stopped) is Interrupted
    assert isinstance(unknown, RemoteError)
    assert not pool.interrupt(job, Own())
    assert len(pool.processes()) == 1


def test_push_is_not_cut_by_a_soft_limit(pool, submit, outbox, tmp_path):
    log = tmp_path / "log"
    outbox.go.clear()
    job = submit("push_twice", [0.3, 0], path=str(log))
    until(lambda: lines(log) and pool._children[0].warned)
    assert not outbox.jobs
    outbox.go.set()
    outbox.wait(1)
    assert job.outcome == SUCCEEDED
    assert [effect.id for effect in outbox.effects] == ["first", "second"]


def test_signals_that_the_parent_has_not_sent_are_ignored(pool, submit, outbox, tmp_path):
    log = tmp_path / "log"
    submit("noop")
    outbox.wait(1)
    (child,) = pool.processes()
    os.kill(child, signal.SIGUSR1)
    job = submit("tidy", [0.3, 0], path=str(log))
    until(lambda: lines(log))
    for _ in range(10):
        os.kill(child, signal.SIGUSR1)
    outbox.wait(2)
    assert job.outcome == SUCCEEDED
    assert pool.processes() == [child]
    assert lines(log) == ["started", "tidied"]


def test_child_that_is_starting_outlives_the_signal(pool, submit, outbox):
    job = submit("noop")
    until(pool.processes)
    (child,) = pool.processes()
    while not outbox.jobs:
        os.kill(child, signal.SIGUSR1)
        time.sleep(0)  # lets the child run, no longer
    assert job.outcome == SUCCEEDED
    assert pool.processes() == [child]


def test_soft_limit_ends_the_run_where_no_signal_can_tell_it(
    pool, submit, outbox, tmp_path, monkeypatch
):
    for module in (pool_child, processes):
        monkeypatch.setattr(module, "INTERRUPT", None)
    soft = submit("held", [0.1, 60], path=str(tmp_path / "1"))
    only = submit("held", [0.2, 0], path=str(tmp_path / "2"))
    outbox.wait(2)
    assert (soft.outcome, only.outcome) == (TimedOut(0.1), TimedOut(0.2))
    held = submit("held", path=str(tmp_path / "3"))
    until(lambda: lines(tmp_path / "3"))
    assert not pool.interrupt(held, SoftTimeLimit())


def test_limit_of_a_thousand_years_overflows_nothing(submit, outbox):
    jobs = [submit("noop", [1e11, 1e300], nth=n) for n in range(3)]
    outbox.wait(3)
    assert {job.outcome for job in jobs} == {SUCCEEDED}


def test_signals_hit_no_other_run_and_leave_no_lock_held(pool, submit, outbox):
    """They rain on runs of 100 us, each aimed at the run of a moment ago.

    20,000; `FSDF_TEST_SIGNALS=100000` for more.
    """
    submit("noop")
    outbox.wait(1)
    (child,), error = pool._children, SoftTimeLimit()
    meant, sent, nth, pause = set(), 0, 1, threading.Event()
    while sent < SIGNALS:
        while len(pool._backlog) < 500:
            submit("spin", nth=nth, seconds=0.0001)
            nth += 1
        for _ in range(100):
            with child.ledger.held():
                meant.add(child.current())
                child.interrupt(error)
            pause.wait(random.random() * 0.0001)
        sent += 100
    outbox.wait(nth)
    hit = {job for job in outbox.jobs if type(job.outcome) is Failed}
    assert hit
    assert {type(job.outcome.error).__name__ for job in hit} == {"SoftTimeLimit"}
    assert hit <= meant
    assert pool._children == [child]
    with child.ledger.held() as locked:
        assert locked
    assert psutil.pid_exists(child.pid)
