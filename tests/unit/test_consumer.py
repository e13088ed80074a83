"""The consumer over the in-process broker: flow, retries, deadlines, stopping."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from doubles import Results, bodies
from helpers import BOUND, until

from fsdf_engine import errors
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Outgoing
from fsdf_engine.controls.expiry import Expiry
from fsdf_engine.controls.rate import Rate
from fsdf_engine.core.context import current
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.pools.threads import ThreadPool
from fsdf_engine.result_sink import result_sink

SINKS = (result_sink(60.0),)


@pytest.fixture(params=["threads", "asyncio"])
def failing(request):
    """A function whose `fails` first attempts raise, and the count of attempts by message."""
    attempts, lock = {}, threading.Lock()

    def fn(n, fails=0):
        with lock:
            attempts[n] = attempts.get(n, 0) + 1
        if attempts[n] <= fails:
            raise ValueError(n)

    async def afn(n, fails=0):
        await asyncio.sleep(0)
        fn(n, fails)

    return (fn if request.param == "threads" else afn), attempts


def test_every_message_runs_and_the_queue_ends_empty(start, failing):
    fn, attempts = failing
    broker = MemoryBroker()
    broker.publish(bodies(2000))
    consumer = start(broker, fn).consumer
    until(lambda: consumer.outbox.settled >= 2000)
    assert len(attempts) == 2000
    assert broker.size("q") == (0, 0, 0, 0)
    assert consumer.most_held <= consumer.hard


@pytest.mark.parametrize("backoff", [0.0, 1.5], ids=["in place", "through the broker"])
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_at_most_n_plus_one_attempts(start, failing, backoff, retries):
    if backoff and retries == 3:
        retries = 2
    fn, attempts = failing
    broker, results = MemoryBroker(), Results()
    policy = RetryPolicy(retries, backoff, 1.1 if backoff else 600.0, jitter=False)
    consumer = start(broker, fn, spec={"policy": policy, "sinks": SINKS}, results=results).consumer
    broker.publish([
        Outgoing("q", "", b'{"n":1,"fails":%d}' % retries), Outgoing("q", "", b'{"n":2,"fails":9}')
    ])  # fmt: skip
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    assert attempts == {1: retries + 1, 2: retries + 1}
    until(lambda: consumer.held() == 0)
    assert results.statuses() == ["failed", "succeeded"]


def test_failed_messages_can_be_acknowledged_instead_of_kept(start):
    broker = MemoryBroker()

    def fn(n):
        if n == 0:
            raise errors.Reject("kept")
        raise ValueError(n)

    broker.publish([*bodies(3), Outgoing("q", "", b"nonsense")])
    spec = {"policy": RetryPolicy(0), "keep_failed": False}
    consumer = start(broker, fn, spec=spec).consumer
    until(lambda: consumer.outbox.settled >= 4)
    reasons = {letter.reason.partition(":")[0] for letter in broker.dead_letters("q")}
    assert reasons == {"rejected", "invalid"}


def test_a_plain_function_that_returns_a_coroutine_fails(start):
    broker = MemoryBroker()

    async def work(n):
        raise AssertionError("nobody awaits it")

    broker.publish(bodies(1))
    start(broker, lambda n: work(n), spec={"policy": RetryPolicy(0)})
    until(lambda: broker.size("q").dead == 1)
    assert "async def" in broker.dead_letters("q")[0].reason


def test_steering_errors_decide(start):
    broker, seen = MemoryBroker(), []

    def fn(n):
        seen.append((n, current.attempt))
        if n == 0 and len([s for s in seen if s[0] == 0]) < 3:
            raise errors.Requeue(delay=0.01)
        if n == 1:
            raise errors.Reject("not this one")
        if n == 2 and current.attempt == 0:
            raise errors.Retry(delay=0.0)

    broker.publish(bodies(3))
    consumer = start(broker, fn, spec={"policy": RetryPolicy(1)}).consumer
    until(lambda: broker.size("q") == (0, 0, 0, 1) and consumer.held() == 0)
    assert sorted(seen) == [(0, 0), (0, 0), (0, 0), (1, 0), (2, 0), (2, 1)]
    assert broker.dead_letters("q")[0].reason == "rejected: not this one"


def test_requeue_keeps_the_attempts_made(start):
    broker, seen = MemoryBroker(), []

    def fn(n):
        seen.append(current.attempt)
        if len(seen) == 1:
            raise ValueError
        if len(seen) == 2:
            raise errors.Requeue(delay=0.01)

    broker.publish(bodies(1))
    consumer = start(broker, fn).consumer
    until(lambda: consumer.fetched == 2 and consumer.held() == 0)
    assert seen == [0, 1, 1]


def test_bad_messages_get_a_result_and_a_dead_letter_and_the_next_one_runs(start):
    broker, results, ran = MemoryBroker(), Results(), threading.Event()
    old = b'{"n":1,"extra":{"task_id":"old","publish_time":5}}'
    expired = b'{"n":1,"extra":{"task_id":"expired","expires":6}}'
    good = b'{"n":1,"extra":{"task_id":"new","publish_time":9e9}}'
    raw = [b"nonsense", b"[]", b'{"m":1}', b'{"n":1,"o":2}', b"\xff", old, expired, good]
    broker.publish([Outgoing("q", "", body) for body in raw])
    spec = {"sinks": SINKS, "max_age": 60.0}
    options = {"gates": [Expiry()], "spec": spec, "results": results}
    consumer = start(broker, lambda n: ran.set(), **options).consumer
    until(lambda: consumer.outbox.settled >= 8)
    assert ran.is_set()
    assert results.statuses() == ["expired"] * 2 + ["invalid"] * 5 + ["succeeded"]
    assert broker.size("q").dead == 5
    assert "'m'" in "".join(letter.reason for letter in broker.dead_letters("q"))


def test_bare_message_gets_one_id_over_redeliveries(start):
    broker, seen = MemoryBroker(), []

    def fn(n):
        seen.append(current.task_id)
        if len(seen) < 3:
            raise errors.Requeue(delay=0.0)

    broker.publish([Outgoing("q", "", b'{"n":1}')])
    start(broker, fn)
    until(lambda: len(seen) == 3)
    assert len(set(seen)) == 1


def test_waiting_long_tasks_are_given_to_a_second_worker(start):
    broker, go, started = MemoryBroker(), threading.Event(), {"a": 0, "b": 0}

    def work(name):
        def fn(n):
            if n >= 3000:
                started[name] += 1
                go.wait(BOUND)

        return fn

    broker.publish(bodies(3030))  # 3,000 quick ones warm the prefetch, 30 long ones follow
    first = start(broker, work("a")).consumer
    until(lambda: started["a"] == 4)
    start(broker, work("b"))
    until(lambda: started["b"] == 4)
    until(lambda: first.held() == 4 and broker.size("q").waiting == 22)
    go.set()


def test_poison_message_is_given_up_as_lost(start):
    broker = MemoryBroker()
    broker.publish(bodies(1))
    for _ in range(6):
        sub = broker.subscribe("q", lease=0.01)
        sub.wait(BOUND)
        assert sub.fetch(1, 100)
    consumer = start(broker, lambda n: None).consumer
    until(lambda: consumer.outbox.settled >= 1)
    assert broker.dead_letters("q")[0].reason.startswith("lost: its lease was lost 6 times")


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_run_past_its_deadline_is_timed_out_and_its_late_result_discarded(start, kind):
    broker, results, go = MemoryBroker(), Results(), threading.Event()

    def slow(n):
        try:
            go.wait(BOUND)
        except BaseException:
            go.wait(BOUND)
        return "late"

    async def aslow(n):
        while not go.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return "late"

    fn = slow if kind == "threads" else aslow
    broker.publish(bodies(1))
    handle = start(broker, fn, spec={"timeout": 0.05, "sinks": SINKS}, results=results)
    until(lambda: results.statuses() == ["timedout"])
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    go.set()
    until(lambda: handle.pool.abandoned() == 0)
    assert results.statuses() == ["timedout"]


def test_an_abandoned_run_does_not_take_the_slot_of_others(start):
    broker, go, ran = MemoryBroker(), threading.Event(), []
    broker.publish(bodies(6))

    def fn(n):
        ran.append(n)
        if n < 1:
            go.wait(BOUND)

    spec = {"timeout": 0.05, "kill": False}
    handle = start(broker, fn, ThreadPool(1), spec=spec)
    until(lambda: len(ran) == 6)
    assert handle.pool.abandoned() == 1
    go.set()
    until(lambda: handle.pool.abandoned() == 0)


def test_too_many_abandoned_runs_stop_the_fetching_and_say_so(start):
    broker, go, told = MemoryBroker(), threading.Event(), threading.Event()
    broker.publish(bodies(10))
    spec = {"timeout": 0.05, "kill": False}
    handle = start(
        broker, lambda n: go.wait(BOUND) and None, ThreadPool(2), spec=spec, overload=told.set
    )
    assert told.wait(BOUND)
    assert handle.pool.abandoned() > 2
    go.set()
    until(lambda: broker.size("q")[:3] == (0, 0, 0))


def test_stop_inside_a_run_returns_and_gives_back_what_waits(start):
    broker, returned, ran = MemoryBroker(), threading.Event(), []
    broker.publish(bodies(100))

    def fn(n):
        ran.append(n)
        if n == 50:
            handle.stop()
            returned.set()

    handle = start(broker, fn, ThreadPool(1))
    assert returned.wait(BOUND)
    assert handle.join(BOUND)
    assert broker.size("q") == (100 - len(ran), 0, 0, 0)


def test_stop_interrupts_what_outlives_the_grace_and_gives_it_back(start):
    broker = MemoryBroker()
    broker.publish(bodies(2))

    async def forever(n):
        await asyncio.sleep(3600)

    handle = start(broker, forever)
    until(lambda: len(handle.pool.running()) == 2)
    handle.stop(timeout=0.05)
    assert broker.size("q") == (2, 0, 0, 0)


def test_idle_consumer_stops_at_once(start):
    handle = start(MemoryBroker(), lambda n: None)
    began = time.monotonic()
    handle.stop()
    assert time.monotonic() - began < 4  # the longest wait is 5 s


def test_pause_gives_back_what_waits_and_resume_goes_on(start):
    broker, go, ran = MemoryBroker(), threading.Semaphore(0), []
    broker.publish(bodies(10))

    def fn(n):
        go.acquire()
        ran.append(n)

    handle = start(broker, fn, ThreadPool(2))
    until(lambda: len(handle.pool.running()) == 2)
    handle.pause()
    go.release(2)
    until(lambda: broker.size("q") == (8, 0, 0, 0))
    assert len(ran) == 2
    handle.resume()
    go.release(8)
    until(lambda: broker.size("q") == (0, 0, 0, 0))


def test_a_shared_pool_serves_both_queues_and_outlives_one(start):
    broker, pool, ran = MemoryBroker(), ThreadPool(2), []
    broker.publish([*bodies(500), *bodies(500, "other")])
    one = start(broker, lambda n: ran.append("q"), pool, shared=True)
    other = start(broker, lambda n: ran.append("other"), pool, shared=True, queue="other")
    until(lambda: len(ran) == 1000)
    one.stop()
    broker.publish(bodies(5, "other"))
    until(lambda: len(ran) == 1005)
    other.stop()
    assert not pool.close(BOUND)


def test_a_flooding_queue_does_not_starve_another_on_a_shared_pool(start):
    broker, pool, order = MemoryBroker(), ThreadPool(2), []
    go = threading.Event()
    broker.publish(bodies(50_000))

    def flood(n):
        order.append("flood")
        if n == 100:
            go.set()

    start(broker, flood, pool, shared=True)
    assert go.wait(BOUND)
    broker.publish(bodies(20, "other"))
    start(broker, lambda n: order.append("other"), pool, shared=True, queue="other")
    until(lambda: order.count("other") == 20)
    assert order.count("flood") < 50_000


def test_no_run_of_a_paced_queue_begins_before_its_instant(start):
    broker, began, due, rate = MemoryBroker(), {}, [], Rate(200.0)
    reserve = rate.starts
    rate.starts = lambda count, now: due.extend(reserve(count, now)) or due[-count:]
    broker.publish(bodies(40))
    handle = start(broker, lambda n: began.update({n: time.monotonic()}), valve=rate)
    until(lambda: handle.consumer.outbox.settled >= 40)
    assert [n for n in range(40) if began[n] < due[n]] == []
    assert due[-1] - due[0] >= 39 * 0.005 / 1.01 - 1e-6


def test_an_unavailable_broker_is_waited_for(start):
    broker = MemoryBroker()
    subscribe, failing = broker.subscribe, [1, 1, 1]

    def flaky(queue, *, lease):
        sub = subscribe(queue, lease=lease)
        fetch = sub.fetch

        def fetch_or_fail(limit, max_bytes):
            if failing:
                failing.pop()
                raise errors.Unavailable("down")
            return fetch(limit, max_bytes)

        sub.fetch = fetch_or_fail
        return sub

    broker.subscribe = flaky
    broker.publish(bodies(3))
    handle = start(broker, lambda n: None)
    until(lambda: handle.consumer.outbox.settled >= 3)


def test_a_broker_that_lets_nobody_wait_is_asked_for_messages(start, caplog):
    broker = MemoryBroker()
    subscribe, waits = broker.subscribe, []

    def waitless(queue, *, lease):
        def wait(timeout):
            waits.append(timeout)
            raise errors.Unavailable("full")

        sub = subscribe(queue, lease=lease)
        sub.wait = wait
        return sub

    broker.subscribe = waitless
    handle = start(broker, lambda n: None)
    until(lambda: len(waits) >= 3)
    assert len([r for r in caplog.records if "queue" in r.message]) == 1  # not one a round
    broker.publish(bodies(3))
    until(lambda: handle.consumer.outbox.settled >= 3)


class Troubled(MemoryBroker):
    """A memory broker that raises its `error`, if it has one; `asked` counts the fetches."""

    error, asked = None, 0

    def subscribe(self, queue, *, lease):
        sub = super().subscribe(queue, lease=lease)
        fetch, wait = sub.fetch, sub.wait

        def fetch_or_fail(limit, max_bytes):
            self.asked += 1
            self._answer()
            return fetch(limit, max_bytes)

        def wait_or_fail(timeout):
            self._answer()
            wait(timeout)
            self._answer()

        sub.fetch, sub.wait = fetch_or_fail, wait_or_fail
        return sub

    def _answer(self):
        if self.error:
            raise self.error


def told_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "fsdf.consumer"]


AWAY, BACK = "queue q: cannot fetch, will try again: down", "queue q: the broker answers again"


def test_an_outage_is_told_once_and_is_over_when_the_broker_has_answered(start, caplog):
    broker, paused = Troubled(), threading.Event()
    consumer = start(broker, lambda n: None).consumer
    withdraw = consumer.withdraw
    consumer.withdraw = lambda **more: (paused.set(), withdraw(**more))
    for _ in range(2):
        caplog.clear()
        paused.clear()
        broker.error = errors.Unavailable("down")
        consumer.rouse()
        until(lambda: told_of(caplog))
        consumer.pause()  # what is done then asks the broker nothing
        assert paused.wait(BOUND)
        consumer.resume()
        asked = broker.asked
        until(lambda asked=asked: broker.asked > asked + 1)
        assert told_of(caplog) == [AWAY]
        broker.error = None
        until(lambda: len(told_of(caplog)) > 1)  # though nothing comes
        assert told_of(caplog) == [AWAY, BACK]


def test_an_error_that_is_no_outage_is_not_told_to_be_the_end_of_one(start, caplog):
    broker = Troubled()
    broker.error = ValueError("wrong")
    consumer = start(broker, lambda n: None).consumer
    until(lambda: told_of(caplog))
    broker.error = None
    broker.publish(bodies(1))
    until(lambda: consumer.outbox.settled == 1)
    assert {*told_of(caplog)} == {"queue q: the consumer failed and goes on"}


def test_contextvars_do_not_leak_between_runs(start):
    from contextvars import ContextVar

    var = ContextVar("leak", default=0)
    seen, broker = [], MemoryBroker()

    def fn(n):
        seen.append(var.get())
        var.set(n + 1)

    async def afn(n):
        fn(n)

    for f in (fn, afn):
        broker.publish(bodies(50))
        handle = start(broker, f)
        until(lambda h=handle: h.consumer.outbox.settled >= 50)
        handle.stop()
    assert set(seen) == {0}


def test_slots_get_the_next_messages_while_results_are_being_stored(start, monkeypatch):
    monkeypatch.setattr("fsdf_engine.core.consumer.IDLE", 2 * BOUND)
    broker, results, stored, ran = MemoryBroker(), Results(), threading.Event(), []
    parked = threading.Event()
    results.broken = lambda records: stored.wait(BOUND) and None

    def run(n):
        assert ran or parked.wait(BOUND)
        ran.append(n)

    broker.publish(bodies(2))
    spec = {"sinks": SINKS}
    handle = start(broker, run, ThreadPool(1), spec=spec, results=results, ceiling=1)
    try:
        until(lambda: handle.consumer.fetched and handle.consumer._room._parked)
        parked.set()
        until(lambda: len(ran) == 2)
        assert not handle.consumer.outbox.settled
    finally:
        stored.set()
