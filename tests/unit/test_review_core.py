"""Hostile messages, odd errors and rare races: each of these once broke the core."""

from __future__ import annotations

import asyncio
import threading

import pytest
from doubles import Loud, Results, bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Job, Outgoing
from fsdf_engine.controls.expiry import Expiry
from fsdf_engine.core.context import current_job
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.errors import PublishError, Requeue, Unavailable
from fsdf_engine.result_sink import result_sink

SINKS = {"sinks": (result_sink(60.0),), "policy": RetryPolicy(0)}


def message(extra, queue="q"):
    return Outgoing(queue, "", b'{"n":1,"extra":{%s}}' % extra)


def settled(handle, count):
    """Wait for so many ends; what waited long for a slot was given back, which is one, too."""
    outbox = handle.consumer.outbox

    def done():
        parts = outbox.broker.size(handle.queue)
        return outbox.settled >= count and not handle.consumer.held() and not parts.waiting

    until(done)


class Mute(Exception):
    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


# ------------------------------------------------------------------ hostile messages


@pytest.mark.parametrize(
    "extra",
    [
        b'"task_id":"t","expires":"2026-01-01T00:00:00"',
        b'"task_id":"t","expires":{"at":1}',
    ],
)
def test_an_expiry_that_is_no_number_dead_letters_its_message_only(start, extra):
    broker, seen = MemoryBroker(), []
    broker.publish([*bodies(2), message(extra), *bodies(2)])
    handle = start(broker, lambda n: seen.append(n), gates=[Expiry()])
    settled(handle, 5)
    assert len(seen) == 4
    assert handle.consumer.held() == 0
    assert broker.size("q") == (0, 0, 0, 1)


def test_a_gate_that_fails_gives_its_batch_back(start):
    class Gate:
        failures = [1]

        def judge(self, batch, now):
            if self.failures:
                self.failures.pop()
                raise RuntimeError("the gate's server is away")
            return [None] * len(batch)

    broker, seen = MemoryBroker(), []
    broker.publish(bodies(3))
    handle = start(broker, lambda n: seen.append(n), gates=[Gate()])
    until(lambda: len(seen) == 3)
    until(lambda: handle.consumer.held() == 0)


@pytest.mark.parametrize("task_id", [b"5", b'["a"]', b'{"b":1}'])
def test_a_task_id_that_is_no_text_becomes_text(start, task_id):
    broker, results = MemoryBroker(), Results()
    broker.publish([message(b'"task_id":%s,"reply":{"a":1}' % task_id)])
    handle = start(broker, lambda n: None, spec=SINKS, results=results)
    settled(handle, 1)
    [record] = results.records.values()
    assert isinstance(record.id, str)
    assert isinstance(record.reply, str)


@pytest.mark.parametrize("args", [b'"abc"', b"5", b'{"a":1}'])
def test_positional_arguments_that_are_no_array_make_a_message_invalid(start, args):
    broker, seen = MemoryBroker(), []
    broker.publish([Outgoing("q", "", b'{"extra":{"task_id":"t","args":%s}}' % args)])
    handle = start(broker, lambda *n: seen.append(n))
    settled(handle, 1)
    assert not seen
    assert broker.dead_letters("q")[0].reason.startswith("invalid: ")


@pytest.mark.parametrize("attempt", [b"-7", b"1e30"])
def test_an_attempt_out_of_range_makes_a_message_invalid(start, attempt):
    broker, seen = MemoryBroker(), []
    broker.publish([message(b'"task_id":"t","attempt":%s' % attempt)])
    handle = start(broker, lambda n: seen.append(n))
    settled(handle, 1)
    assert not seen
    assert broker.size("q").dead == 1


# ------------------------------------------------------------------ odd errors and values


def test_an_error_without_text_ends_its_message_and_not_the_outbox(start):
    def fn(n):
        if n == 0:
            raise Mute

    broker, results = MemoryBroker(), Results()
    broker.publish(bodies(3))
    handle = start(broker, fn, spec=SINKS, results=results)
    settled(handle, 3)
    assert broker.size("q") == (0, 0, 0, 1)
    assert results.statuses() == ["failed", "succeeded", "succeeded"]


@pytest.mark.parametrize(
    "error",
    [ValueError(10**30), ValueError("\udcff"), OSError(2, "\udcff", "\udcfe"), ValueError(Mute())],
    ids=["huge", "surrogate", "file name", "mute argument"],
)
def test_a_waiter_learns_of_errors_that_json_cannot_carry(start, error):
    def fn(n):
        raise error

    broker, results = MemoryBroker(), Results()
    broker.publish(bodies(1))
    handle = start(broker, fn, spec=SINKS, results=results)
    settled(handle, 1)
    assert results.statuses() == ["failed"]
    [letter] = broker.dead_letters("q")
    letter.reason.encode()
    letter.trace.encode()


def loop():
    value = []
    value.append(value)
    return value


class Real(float):
    pass


@pytest.mark.parametrize("value", ["\udcff", loop(), Real("nan"), {"a": "\udcff"}])
def test_a_value_without_a_json_form_is_told_as_a_failure(start, value):
    broker, results = MemoryBroker(), Results()
    broker.publish(bodies(1))
    handle = start(broker, lambda n: value, spec=SINKS, results=results)
    settled(handle, 1)
    assert results.statuses() == ["failed"]
    assert "cannot be stored" in results.told("0")["reason"]
    assert broker.size("q") == (0, 0, 0, 1)


def test_messages_that_a_partial_failure_stored_are_not_published_again(start):
    class Picky(MemoryBroker):
        def publish(self, batch):
            if batch[0].queue != "q":  # so that one flush has several
                until(lambda: outboxes and outboxes[0].last_ended() == 4)
            bad = [o for o in batch if o.queue == "bad"]
            super().publish([o for o in batch if o.queue != "bad"])
            if bad:
                raise PublishError(bad)

    def follow(job, outcome):
        return [Outgoing("bad" if job.id == "1" else "next", job.id, b"{}")]

    broker, outboxes = Picky(), []
    broker.publish(bodies(4))
    handle = start(broker, lambda n: None, spec={"sinks": (follow,)})
    outboxes.append(handle.consumer.outbox)
    settled(handle, 4)
    assert broker.size("next").waiting == 3
    assert broker.size("q") == (0, 0, 0, 1)


def test_commits_of_unknown_fate_are_told_and_not_published_again(start):
    class Gone(MemoryBroker):
        arrived = []

        def publish(self, batch):
            out = [o for o in batch if o.queue == "next"]
            self.arrived.extend(out)
            if out:
                raise PublishError([], out)
            super().publish(batch)

    errors = []

    def fn(n):
        job = current_job.get()
        try:
            job.owner.commit(job, [Outgoing("next", str(n), b"{}")])
        except PublishError as error:
            errors.append([o.id for o in error.unknown])

    broker = Gone()
    broker.publish(bodies(20))
    handle = start(broker, fn)
    settled(handle, 20)
    assert sorted(o.id for o in broker.arrived) == sorted(str(n) for n in range(20))
    assert sorted(errors) == sorted([str(n)] for n in range(20))


def test_a_failed_message_whose_result_is_refused_becomes_a_dead_letter(start):
    def fn(n):
        raise ValueError(n)

    broker, results = MemoryBroker(), Results()
    results.broken = lambda records: RuntimeError("too large")
    broker.publish(bodies(1))
    handle = start(broker, fn, spec=SINKS, results=results)
    settled(handle, 1)
    assert broker.size("q") == (0, 0, 0, 1)


def test_a_loop_that_is_closed_while_its_commit_is_stored_harms_nobody(start):
    broker = Loud()
    handle = start(broker, lambda n: None)
    outbox, job = handle.consumer.outbox, Job()
    job.id, job.acked, job.delivery = "x", False, None
    gate, publish = threading.Event(), broker.publish

    def slow(batch):
        if batch[0].queue == "next":
            gate.wait(BOUND)
        publish(batch)

    broker.publish = slow

    async def abandon():
        task = asyncio.ensure_future(outbox.acommit(job, [Outgoing("next", "1", b"{}")]))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(abandon())
    gate.set()
    publish(bodies(3))
    settled(handle, 3)
    assert broker.size("next").waiting == 1


def test_a_commit_after_the_end_of_the_outbox_is_refused(start):
    broker = MemoryBroker()
    handle = start(broker, lambda n: None)
    handle.stop()
    job = Job()
    job.id, job.acked, job.delivery = "x", False, None
    told = []

    def late():
        with pytest.raises(Unavailable):
            handle.consumer.outbox.commit(job, [Outgoing("next", "1", b"{}")])
        told.append(1)

    thread = threading.Thread(target=late, daemon=True)
    thread.start()
    thread.join(BOUND)
    assert told


def test_an_early_acknowledgement_of_a_lost_lease_starts_no_run(start):
    broker, seen = MemoryBroker(), []
    subscribe = broker.subscribe

    def lossy(queue, *, lease):
        subscription = subscribe(queue, lease=lease)
        settle = subscription.settle

        def lost(batch):
            settle(batch)
            return [lease for lease, _ in batch]

        subscription.settle = lost
        return subscription

    broker.subscribe = lossy
    results = Results()
    broker.publish(bodies(1))
    handle = start(broker, lambda n: seen.append(n), spec={**SINKS, "early": True}, results=results)
    settled(handle, 1)
    assert not seen
    assert not results.records  # who has the message tells how it ended


def test_requeue_of_an_early_acknowledged_message_keeps_it(start):
    broker, seen = MemoryBroker(), []

    def fn(n):
        seen.append(n)
        if len(seen) == 1:
            raise Requeue(delay=0.0)

    broker.publish(bodies(1))
    start(broker, fn, spec={"early": True})
    until(lambda: len(seen) == 2)


def test_a_lease_that_ends_while_it_is_renewed_is_not_kept_as_lost(start):
    broker = MemoryBroker()
    keeper = start(broker, lambda n: None).consumer.keeper
    job = Job()

    class Delivery:
        lease = (1, 1)

    job.delivery = Delivery
    keeper.held.add(job)

    class Settles(set):  # the outbox settles the job when the keeper has just judged it lost
        def __ior__(self, other):
            keeper.drop([job])
            return super().__ior__(other)

    keeper.lost = Settles()
    keeper.extend()
    assert not keeper.lost


# ------------------------------------------------------------------ runs
