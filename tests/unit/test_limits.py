"""Soft and hard limits: of tasks and of single messages, and the heap that keeps them."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from doubles import Results
from helpers import BOUND, until

from fsdf_engine import ConfigurationError, SoftTimeLimit, current, task_deco
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Job, Outgoing, Plan
from fsdf_engine.core import due
from fsdf_engine.core.due import Deadlines
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.errors import ArgumentError
from fsdf_engine.limits import check_limits
from fsdf_engine.outcomes import Deadline, TimedOut
from fsdf_engine.result_sink import result_sink

ONCE = RetryPolicy(0)


def body(limits, **arguments):
    return json.dumps({"extra": {"task_id": "id", "limits": limits}, **arguments}).encode()


class Waits:
    """A task that waits for its limits and notes what is raised in it."""

    def __init__(self, kind, *, stubborn=False):
        self.raised, self.attempts, self.go = [], [], threading.Event()
        self.stubborn = stubborn
        self.fn = self.wait if kind == "threads" else self.await_

    def note(self, error):
        self.raised.append(type(error))
        if not self.stubborn:
            raise error

    def wait(self):
        self.attempts.append(current.attempt)
        while not self.go.is_set():
            try:
                while not self.go.wait(0.002):
                    pass
            except BaseException as error:
                self.note(error)
        return "returned"

    async def await_(self):
        self.attempts.append(current.attempt)
        while not self.go.is_set():
            try:
                while not self.go.is_set():
                    await asyncio.sleep(0.002)
            except BaseException as error:
                self.note(error)
        return "returned"


@pytest.fixture(params=["threads", "asyncio"])
def kind(request):
    return request.param


@pytest.fixture
def work(start, kind):
    """`work(limits, stubborn=..., **plan)` publishes one message -> (task, results, broker)."""

    def work(limits, *, stubborn=False, **spec):
        broker, results, waits = MemoryBroker(), Results(), Waits(kind, stubborn=stubborn)
        sent = b"{}" if limits is None else body(limits)
        broker.publish([Outgoing("q", "id", sent)])
        spec = {"sinks": (result_sink(60.0),), "policy": ONCE, **spec}
        start(broker, waits.fn, spec=spec, results=results)
        return waits, results, broker

    return work


@pytest.mark.parametrize(
    ("limits", "spec"),
    [
        ([0.05, 0], {}),
        ([0.05, None], {"timeout": 60.0}),
        ([0.05, 60], {"soft": 30.0, "timeout": 0.01}),
        (None, {"soft": 0.05}),
        ([0, 60.0], {"soft": 0.05, "timeout": 0.01}),
    ],
)
def test_soft_limit_is_raised_and_fails_the_run(work, limits, spec):
    _, results, broker = work(limits, **spec)
    until(lambda: results.statuses() == ["failed"])
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    assert broker.dead_letters("q")[0].reason.startswith("SoftTimeLimit: the run has passed")


@pytest.mark.parametrize(
    ("limits", "spec"),
    [
        ([0, 0.05], {}),
        ([None, 0.05], {"timeout": 60.0}),
        ([None, 0.05], {"soft": 30.0}),  # the lower one comes first
        ([0.05, 0.05], {}),
        (None, {"timeout": 0.05}),
    ],
)
def test_hard_limit_ends_the_run(work, limits, spec):
    waits, results, broker = work(limits, **spec)
    until(lambda: results.statuses() == ["timedout"])
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    assert SoftTimeLimit not in waits.raised
    assert broker.dead_letters("q")[0].reason.startswith("timedout: ")
    assert "0.05 s" in broker.dead_letters("q")[0].reason


def test_run_that_goes_on_after_its_soft_limit_is_ended_at_its_hard_one(work):
    waits, results, _ = work([0.2, 0.4], stubborn=True)
    until(lambda: results.statuses() == ["timedout"])
    until(lambda: len(waits.raised) > 1)
    assert waits.raised[0] is SoftTimeLimit
    waits.go.set()


def test_run_may_return_after_its_soft_limit(work):
    waits, results, broker = work([0.2, 60], stubborn=True)
    until(lambda: waits.raised == [SoftTimeLimit])
    waits.go.set()
    until(lambda: results.statuses() == ["succeeded"])
    until(lambda: broker.size("q") == (0, 0, 0, 0))


def test_each_attempt_has_its_own_soft_limit(work):
    waits, results, _ = work([0.2, 60], policy=RetryPolicy(2))
    until(lambda: results.statuses() == ["failed"])
    assert waits.attempts == [0, 1, 2]
    assert waits.raised == [SoftTimeLimit] * 3


def test_message_without_limits_has_those_of_its_task_only(work):
    waits, results, _ = work([0, 0])
    until(lambda: waits.attempts)
    waits.go.set()
    until(lambda: results.statuses() == ["succeeded"])


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ([-1, 0], "-1"), ([0, -0.5], "-0.5"), ([3, 2], "soft limit of 3 s is above"),
        ("ab", "'ab'"), ([1], r"\[1\]"), ([True, 2], "True"), ({"soft": 1}, "soft"), (5, "5"),
        ([1, "2"], "'2'"),
    ],
)  # fmt: skip
def test_limits_that_are_none_make_a_dead_letter_and_the_next_message_runs(start, limits, reason):
    broker, ran = MemoryBroker(), []
    broker.publish([Outgoing("q", "bad", body(limits, n=0)), Outgoing("q", "good", b'{"n": 1}')])
    start(broker, lambda n: ran.append(n))
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    until(lambda: ran == [1])
    letter = broker.dead_letters("q")[0]
    assert letter.reason.startswith("invalid: the ")
    with pytest.raises(ValueError, match=reason):
        check_limits(limits)


def test_limits_that_no_json_has_are_refused():
    for limits in ([float("nan"), 0], [0, float("inf")], [0, 10**400]):
        with pytest.raises(ValueError, match="number of seconds"):
            check_limits(limits)


# ---------------------------------------------------------------------- options and control


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"soft_time_limit": -1}, "soft_time_limit=-1 is out of range"),
        ({"soft_time_limit": float("nan")}, "soft_time_limit=nan is not a number"),
        ({"soft_time_limit": 3, "function_timeout": 2}, "soft_time_limit=3 is above"),
    ],
)
def test_wrong_limits_are_refused_at_the_declaration(options, told):
    with pytest.raises(ConfigurationError, match=told):
        task_deco("q", **options)


@pytest.mark.parametrize(
    ("control", "told"),
    [
        ({"soft_time_limit": -1}, "soft_time_limit=-1"),
        ({"function_timeout": float("nan")}, "function_timeout=nan"),
        ({"function_timeout": float("inf")}, "function_timeout=inf"),
        ({"soft_time_limit": "2"}, "soft_time_limit='2'"),
        ({"soft_time_limit": 3, "function_timeout": 2}, "soft limit of 3 s is above"),
    ],
)
def test_wrong_limits_are_refused_when_a_message_is_published(control, told):
    task = task_deco("limits", broker_kind="memory")(lambda: None)
    with pytest.raises(ArgumentError, match=told):
        task.publish({}, **control)
    assert task.get_message_count() == 0


def test_limits_of_one_call_travel_in_its_message_and_are_seen_by_its_run():
    seen = []
    options = {"broker_kind": "memory", "function_timeout": 50, "soft_time_limit": 40}
    task = task_deco("limits", **options)(lambda: seen.append(current.limits))
    task.push()
    task.publish({}, soft_time_limit=20)
    task.publish({}, function_timeout=30.5)
    task.publish({}, soft_time_limit=20, function_timeout=30.5)
    task.consume()
    assert task.join(BOUND)
    assert sorted(seen) == [(20, 30.5), (20, 50), (40, 30.5), (40, 50)]


# ---------------------------------------------------------------------- the heap


class Pool:
    """Notes what it is to raise."""

    def __init__(self):
        self.raised = []

    def interrupt(self, job, error, kill=False):
        self.raised.append((job.id, type(error), kill))


class Owner:
    def put(self, job):
        """Take the outcome."""


def job_of(limits, n=0, claims=True):
    job = Job()
    job.plan = Plan("", "q", None, None, None)
    job.id, job.attempt, job.owner = n, 0, Owner()
    job.extra, job.claims = {"limits": limits}, [None] if claims else None
    return job


@pytest.fixture
def kept():
    """Deadlines over a pool that notes."""
    made = Deadlines(Pool())
    yield made
    made.close()


def test_limits_are_due_in_order_however_they_were_given(kept):
    ends = {n: (n * 7 % 10 + 1) / 50 for n in range(10)}
    jobs = [job_of([0, end], n) for n, end in ends.items()]
    for job in jobs:
        kept.watch(job)
    until(lambda: len(kept._pool.raised) == 10)
    order = sorted(ends, key=ends.__getitem__)
    assert kept._pool.raised == [(n, Deadline, True) for n in order]
    assert {job.outcome for job in jobs} == {TimedOut(end) for end in ends.values()}


def test_soft_limit_comes_first_and_takes_no_claim(kept):
    job = job_of([0.02, 0.04])
    kept.watch(job)
    until(lambda: len(kept._pool.raised) == 2)
    assert kept._pool.raised == [(0, SoftTimeLimit, False), (0, Deadline, True)]
    late = job_of([0.02, 60])
    kept.watch(late)
    until(lambda: len(kept._pool.raised) == 3)
    assert late.claims == [None]


def test_run_that_has_ended_is_left_alone(kept):
    job, again, last = job_of([0.2, 0.3]), job_of([0.2, 0.3]), job_of([0, 0.5], 1)
    for each in (job, again, last):
        kept.watch(each)
    job.claims.pop()
    again.attempt = 1
    until(lambda: kept._pool.raised == [(1, Deadline, True)])


def test_entries_of_ended_runs_do_not_pile_up(kept, monkeypatch):
    monkeypatch.setattr(due, "MOST", 100)
    kept._most = 100
    kept.watch(hangs := job_of([0, 50]))
    for n in range(5000):
        job = job_of([60 + n % 977, 7000.0 + n])
        kept.watch(job)
        job.claims.pop()
        assert len(kept._heap) <= 102
    assert kept._heap[0][2] is hangs


def test_no_thread_is_started_for_what_has_no_limits(kept):
    kept.watch(job_of([0, 0]))
    assert kept._thread is None


def test_limit_of_a_thousand_years_overflows_nothing(kept):
    kept.watch(job_of([1e11, 1e300]))
    kept.watch(job_of([0, 0.01], 1))
    until(lambda: kept._pool.raised == [(1, Deadline, True)])
    assert kept._thread.is_alive()
