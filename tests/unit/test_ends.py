"""Every outcome, acknowledged early and late, in each wire form: gone, in line again, or dead."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict

import pytest
from doubles import ListForm, Results
from helpers import until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Delivery, Job, Outgoing, Plan, Record
from fsdf_engine.core.binding import Binding
from fsdf_engine.core.consumer import Consumer
from fsdf_engine.core.due import Deadlines
from fsdf_engine.core.ending import give_ends
from fsdf_engine.core.worker import ConsumerHandle
from fsdf_engine.listeners import Listeners
from fsdf_engine.message import FLAT
from fsdf_engine.outcomes import (
    ACK,
    ELSEWHERE,
    Crashed,
    Deferred,
    Expired,
    Failed,
    Filtered,
    Interrupted,
    Invalid,
    Lost,
    Rejected,
    Requeue,
    Retry,
    Revoked,
    Succeeded,
    TimedOut,
    Unknown,
)  # fmt: skip
from fsdf_engine.pools.threads import ThreadPool
from fsdf_engine.result_sink import result_sink

# What becomes of the message, and the status that a waiter learns in the end; of what is in line
# again that is the success of the run that follows.
GONE, BACK, DEAD = "gone", "in line again", "dead"
ENDS = [
    (Succeeded(1), GONE, "succeeded"),
    (Failed(ValueError("no")), DEAD, "failed"),
    (Failed(Interrupted()), BACK, "succeeded"),
    (Retry(ValueError("no"), 1.01, 1), BACK, "succeeded"),
    (Retry(ValueError("no"), 0.0, 1), BACK, "succeeded"),
    (Requeue(), BACK, "succeeded"),
    (Rejected("no"), DEAD, "rejected"),
    (TimedOut(1.0), DEAD, "timedout"),
    (Expired(1.0), GONE, "expired"),
    (Filtered("key"), GONE, "filtered"),
    (Revoked(), GONE, "revoked"),
    (Invalid("no"), DEAD, "invalid"),
    (Unknown("task"), DEAD, "unknown"),
    (Deferred(0.0), BACK, "succeeded"),
    (Lost(6), DEAD, "lost"),
    (Crashed(-9), BACK, "succeeded"),
]


def expected(end, ack):
    """Without a lease a run whose child died is rather lost than repeated."""
    outcome, where, status = end
    return (DEAD, "lost") if ack == "early" and type(outcome) is Crashed else (where, status)


FORMS = {
    "flat": (FLAT, b'{"n":1,"extra":{"task_id":"id"}}'),
    "list": (ListForm(), b'[{"task_id":"id"},[1]]'),
}


@pytest.fixture
def consume():
    """`consume(broker, run, **spec)`: a consumer whose runs end as `run(job)` says."""
    handles = []

    def consume(broker, run, results, codec, **spec):
        pool = ThreadPool(2)
        consumer = Consumer(broker, "q", pool, results=results, codecs=(codec,))
        sinks = (result_sink(60.0),)
        plan = Plan("", "q", run, None, Binding(lambda n: None).bind, sinks, **spec)
        consumer.add(plan)
        handle = ConsumerHandle(
            consumer, own_pool=True, deadlines=Deadlines(pool), listeners=Listeners(),
            forget=lambda: None,
        )  # fmt: skip
        handles.append(handle)
        handle.start()
        return consumer

    yield consume
    for handle in handles:
        handle.stop()


def named(end):
    return type(end[0]).__name__.lower()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ack", ["early", "late"])
@pytest.mark.parametrize("end", ENDS, ids=named)
def test_where_a_message_is_after_its_run(consume, end, ack, form):
    codec, body = FORMS[form]
    broker, results, runs = MemoryBroker(), Results(), []

    def run(job):
        runs.append(job.acked)
        return end[0] if len(runs) == 1 else Succeeded(2)

    broker.publish([Outgoing("q", "id", body, priority=3)])
    consumer = consume(broker, run, results, codec, early=ack == "early")
    where, status = expected(end, ack)
    until(lambda: len(runs) == 1 + (where is BACK) and not consumer.held())
    assert broker.size("q") == (0, 0, 0, int(where is DEAD))
    assert results.statuses() == [status]
    assert set(runs) == {ack == "early"}
    assert not consumer.keeper.acked | consumer.keeper.held | consumer.keeper.lost
    for letter in broker.dead_letters("q"):
        assert letter.body == body
        assert letter.reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ENDS, ids=named)
def test_an_early_failure_is_kept_only_where_the_task_keeps_them(consume, end, form):
    codec, body = FORMS[form]
    broker, results, runs = MemoryBroker(), Results(), []

    def run(job):
        runs.append(job)
        return end[0] if len(runs) == 1 else Succeeded(2)

    broker.publish([Outgoing("q", "id", body)])
    consumer = consume(broker, run, results, codec, early=True, keep_failed=False)
    where, status = expected(end, "early")
    until(lambda: results.statuses() == [status] and not consumer.held())
    dropped = status in ("failed", "timedout")
    assert broker.size("q") == (0, 0, 0, int(where is DEAD and not dropped))


def test_a_message_sent_again_keeps_its_form_priority_and_headers(consume):
    broker, results, runs = MemoryBroker(), Results(), []

    def run(job):
        runs.append((job.delivery.priority, job.delivery.headers, json.loads(job.delivery.body)))
        return Requeue() if len(runs) == 1 else Succeeded()

    body = b'[{"task_id":"id","reply":"inbox"},[1]]'
    broker.publish([Outgoing("q", "id", body, {"trace": "t"}, priority=4)])
    consumer = consume(broker, run, results, ListForm(), early=True)
    until(lambda: len(runs) == 2 and not consumer.held())
    (before, headers, sent), after = runs
    assert (before, headers) == after[:2] == (4, {"trace": "t"})
    assert after[2] == [{**sent[0], "sends": 1, "attempt": 0, "crashes": 0, "pushes": None}, [1]]


def test_a_form_that_cannot_be_written_again_is_a_dead_letter(consume):
    class ReadOnly(ListForm):
        def again(self, job, changes):
            raise NotImplementedError("read only")

    broker, results = MemoryBroker(), Results()
    broker.publish([Outgoing("q", "id", FORMS["list"][1])])
    consumer = consume(broker, lambda job: Requeue(), results, ReadOnly(), early=True)
    until(lambda: broker.size("q").dead and not consumer.held())
    assert results.statuses() == ["failed"]
    assert "read only" in broker.dead_letters("q")[0].reason


def test_letters_wait_until_the_broker_takes_them(consume):
    broker, results, failures = MemoryBroker(), Results(), [1, 1]
    bury = broker.bury

    def failing(batch):
        assert results.statuses() == ["failed"]  # what waiters learn is stored first
        if failures:
            failures.pop()
            raise ConnectionError("down")
        bury(batch)

    broker.bury = failing
    broker.publish([Outgoing("q", "id", FORMS["flat"][1])])
    began = time.monotonic()
    consumer = consume(broker, lambda job: Failed(ValueError("no")), results, FLAT, early=True)
    until(lambda: broker.size("q").dead == 1)
    until(lambda: not consumer.held())
    assert time.monotonic() - began < 10.0


def test_a_letter_that_the_broker_refuses_is_named_with_its_body(consume, caplog):
    broker, results = MemoryBroker(), Results()

    def refusing(batch):
        raise ValueError("too large")

    broker.bury = refusing
    broker.publish([Outgoing("q", "id", FORMS["flat"][1])])
    consumer = consume(broker, lambda job: Failed(ValueError("no")), results, FLAT, early=True)
    until(lambda: results.statuses() == ["failed"])
    until(lambda: not consumer.held())
    [told] = [r for r in caplog.records if "is not stored" in r.msg]
    assert str(FORMS["flat"][1]) in told.getMessage()
    assert not consumer.keeper.acked


def test_what_was_published_otherwise_is_of_another_origin():
    """Also where it is equal for Python, or cannot be a key; told again it is the same."""
    sink = result_sink(60.0)
    job = Job()
    job.plan = Plan("", "q", None, None, Binding(lambda: None).bind)
    job.id, job.attempt, job.delivery = "id", 0, Delivery((0, 0), b"", "x")

    def origin(extra):
        job.extra = extra
        return sink(job, Succeeded(1))[0].origin

    sent = [{}, {"task_id": "a"}, {"publish_time": 1}, {"publish_time": 1.0}]
    sent += [{"publish_time": True}, {"publish_time": [1]}, {"publish_time": 1, "reply": {}}]
    origins = [origin(extra) for extra in sent]
    assert [origin(extra) for extra in reversed(sent)] == origins[::-1]
    assert len({*origins}) == len(sent)
    assert origins[2] == hashlib.blake2b(b"q:1:None", digest_size=8).hexdigest()


@pytest.mark.parametrize("extra", [{}, {"publish_time": 1}, {"publish_time": 1.5}, {"sends": 2}])
@pytest.mark.parametrize("reply", [None, "inbox", ["inbox"]])
@pytest.mark.parametrize("id", ["id", 'quo"te', "漢"])
def test_a_success_is_told_of_its_json_as_of_its_value(extra, reply, id):
    sink = result_sink(60.0)
    job = Job()
    job.plan = Plan("task", "q", None, None, Binding(lambda: None).bind)
    job.id, job.attempt, job.delivery = id, 3, Delivery((0, 0), b"", "x", 2)
    job.extra = {**extra, "reply": reply} if reply else extra
    job.told = b'[1,"x"]'
    [of_value], [[of_json]] = sink(job, Succeeded([1, "x"])), sink.of_json([job], 1.23456)
    told, same = json.loads(of_value.body), json.loads(of_json.body)
    assert list(told) == list(same)
    assert same["ended_at"] == 1.2345 or same["ended_at"] > 1e9
    assert {**told, "ended_at": 0} == {**same, "ended_at": 0}
    of_value.body = of_json.body = b""
    assert asdict(of_value) == asdict(of_json)


def test_a_sink_that_fails_of_one_success_costs_no_other_its_result():
    def sink(job, outcome):
        raise AssertionError("asked for more than the JSON of the value")

    def of_json(jobs, now):
        return [(Record(job.id, {b"1": b"told"}[job.told]),) for job in jobs]

    sink.of_json = of_json
    jobs = [Job() for _ in "abc"]
    for job, told in zip(jobs, (b"1", b"no JSON of ours", b"1"), strict=True):
        job.plan = Plan("task", "q", None, None, Binding(lambda: None).bind, (sink,))
        job.id, job.outcome, job.told = "id", ELSEWHERE, told
    assert give_ends(jobs, 0.0, print) == 3
    assert [[e.body for e in job.effects] for job in jobs] == [[b"told"], [], [b"told"]]
    assert [job.verdict for job in jobs][::2] == [ACK, ACK]
    assert jobs[1].verdict.reason.startswith("cannot store: KeyError(b'no JSON of ours'")
