"""Messages whose names nobody knows yet: what becomes of them while somebody is asked."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from doubles import Loud
from helpers import BOUND, until

from fsdf_engine import asking as asking_module
from fsdf_engine import resolver as resolver_module
from fsdf_engine.asking import LONGEST, TRIES, Asking, Turns
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Delivery, Job, Outgoing, Plan
from fsdf_engine.core.binding import Binding, unbound
from fsdf_engine.core.ending import POISON
from fsdf_engine.core.isolation import ORDINARY
from fsdf_engine.core.resolving import Resolving
from fsdf_engine.core.run import compile_plan
from fsdf_engine.engine import Engine
from fsdf_engine.errors import UnknownTask
from fsdf_engine.outcomes import Failed, Invalid, Lost, Succeeded, TimedOut, Unknown
from fsdf_engine.pools import child as child_module
from fsdf_engine.pools.threads import ThreadPool


def named(name, count=1, start=0):
    return [
        Outgoing("q", f"{n}", b'{"n":%d,"extra":{"task":"%s"}}' % (n, name.encode()))
        for n in range(start, start + count)
    ]


def let(consumer, find, turns=None, **spec):
    """Let a consumer ask `find(name)` for functions."""

    def run(job):
        try:
            return Succeeded(find(job.kwargs["name"]))
        except BaseException as error:
            return Failed(error)

    asks(consumer, run, lambda name, fn: serve(consumer, name, fn, **spec), turns)


def serve(consumer, name, fn, **spec):
    plan = Plan(name, "q", None, None, Binding(fn).bind, **spec)
    consumer.add(compile_plan(plan, fn))


def asks(consumer, run, serve, turns=None):
    question, turns = Plan("find", "q", run, None, unbound), turns or Turns()
    consumer.resolving = Asking(
        question, serve, consumer.pool, consumer.plans, turns, consumer.rouse
    )


def into(seen):
    return lambda n: seen.append(n)


class Finder:
    """Finds one function for every name, once it may."""

    def __init__(self, fn, *, open=True):
        self.fn, self.asked, self.go = fn, [], threading.Event()
        if open:
            self.go.set()

    def __call__(self, name):
        self.asked.append(name)
        self.go.wait(BOUND)
        return self.fn


def test_what_is_found_passes_the_gates_as_any(start):
    seen, ran = [], []

    class Gate:
        def judge(self, batch, now):
            seen.extend(job.plan.name for job in batch)
            return [None] * len(batch)

    broker, find = MemoryBroker(), Finder(into(ran))
    handle = start(broker, print, gates=[Gate()])
    let(handle.consumer, find)
    broker.publish(named("x", 20))
    until(lambda: sorted(ran) == [*range(20)] and broker.size("q") == (0, 0, 0, 0))
    assert seen == ["x"] * 20
    assert find.asked == ["x"]


def test_what_is_found_is_acknowledged_early_if_it_wants(start):
    ran = []
    broker = Loud()
    handle = start(broker, print)
    let(handle.consumer, Finder(into(ran)), early=True)
    broker.publish(named("x", 20))
    until(lambda: sorted(ran) == [*range(20)] and not handle.consumer.held())
    assert not handle.consumer.keeper.acked


def test_a_lease_that_was_lost_meanwhile_is_another_worker_s(start):
    ran = []
    broker, find = Loud(), Finder(into(ran), open=False)
    handle = start(broker, print, lease=0.15)
    let(handle.consumer, find)
    broker.publish(named("x"))
    until(lambda: find.asked)
    broker.lose = True
    until(lambda: handle.consumer.keeper.lost)
    find.go.set()
    until(lambda: not handle.consumer.held())
    assert ran == []
    assert not handle.consumer.keeper.held
    broker.lose = False  # its lease has ended, or will
    until(lambda: ran == [0])


def test_suspects_wait_in_no_company(start):
    """Perhaps it is the question that ends their workers."""
    ran = []
    broker, find = MemoryBroker(), Finder(into(ran), open=False)
    subscribe = broker.subscribe

    def suspicious(queue, *, lease):
        subscription = subscribe(queue, lease=lease)
        fetch = subscription.fetch

        def fetched(limit, size):
            deliveries = fetch(limit, size)
            for delivery in deliveries:
                delivery.deliveries = ORDINARY + 1
            return deliveries

        subscription.fetch = fetched
        return subscription

    broker.subscribe = suspicious
    handle = start(broker, into(ran))
    let(handle.consumer, find)
    broker.publish([*named("x", 3), *named("", start=99)])
    until(lambda: find.asked and broker.size("q").leased == 1)
    assert ran in ([], [99])
    find.go.set()
    until(lambda: sorted(ran) == [0, 1, 2, 99])


def test_unknown_is_forgotten_after_a_while(start, monkeypatch):
    monkeypatch.setattr(asking_module, "KEPT", 0.05)
    broker, find = MemoryBroker(), Finder(None)
    handle = start(broker, print)
    let(handle.consumer, find)
    until(lambda: broker.publish(named("x")) or len(find.asked) == 3)
    until(lambda: broker.size("q")[:3] == (0, 0, 0))


def test_a_flood_of_unknown_names_leaves_little_behind(start, monkeypatch):
    monkeypatch.setattr(asking_module, "MOST", 20)
    broker, find = MemoryBroker(), Finder(None)
    handle = start(broker, into([]))
    let(handle.consumer, find)
    names = [f"name {n}" for n in range(300)]
    broker.publish([o for n, name in enumerate(names) for o in named(name, start=n)])
    for n, odd in enumerate((b'"%s"' % (b"x" * (LONGEST + 1)), b"7", b"[]", b"null")):
        body = b'{"n":1,"extra":{"task_id":"%d","task":%s}}' % (n, odd)
        broker.publish([Outgoing("q", f"odd {n}", body)])
    until(lambda: broker.size("q")[:3] == (0, 0, 0))
    assert broker.size("q").dead == 303  # without a name it is for the task that has none
    assert sorted(find.asked) == sorted(names)  # and not for the odd ones
    assert len(handle.consumer.resolving._faults) == 20
    assert not handle.consumer.resolving._waiting


def test_a_message_that_lost_its_workers_is_asked_for_no_more():
    question = Plan("", "q", None, None, unbound)
    resolving = Asking(question, print, ThreadPool(1), {}, Turns(), lambda: None)
    jobs = [Job() for _ in range(3)]
    for job, deliveries in zip(jobs, (0, POISON, POISON + 1)):
        job.owner = resolving
        job.delivery, job.extra = Delivery((0, 0), b"", deliveries=deliveries), {"task": "x"}
    invalid = Job(), Invalid("no message")
    invalid[0].extra = {}
    answers = [invalid, *((job, Unknown("x")) for job in jobs)]
    assert resolving.sift(answers) == jobs[:2]
    assert answers == [invalid, (jobs[2], Lost(POISON + 1))]


def test_who_does_not_ask_holds_nothing_back():
    answers = [(Job(), Unknown("x"))]
    assert Resolving().sift(answers) == []
    assert len(answers) == 1


def test_answers_count_against_their_name_alone(start):
    """Two that are late make it unknown; what fails in words does at once."""
    broker, ran, asked = MemoryBroker(), [], Counter()
    handle = start(broker, print)

    def run(job):
        name = job.kwargs["name"]
        asked[name] += 1
        match name:
            case "late":
                return TimedOut(60.0)
            case "once":
                return TimedOut(60.0) if asked[name] == 1 else Succeeded(into(ran))
        return Failed(UnknownTask("words"))

    asks(handle.consumer, run, lambda name, fn: serve(handle.consumer, name, fn))
    broker.publish(named("late") + named("words", start=1) + named("once", start=2))
    until(lambda: broker.size("q") == (0, 0, 0, 2) and ran == [2])
    assert asked == {"late": TRIES, "words": 1, "once": 2}
    reasons = sorted(letter.reason for letter in broker.dead_letters("q"))
    assert "'late' is declared on this queue: its resolver failed 2 times: the run" in reasons[0]
    assert (
        "'words' is declared on this queue: its resolver failed: UnknownTask: words" in reasons[1]
    )


def test_a_closed_pool_is_a_failed_question(start):
    broker, find = MemoryBroker(), Finder(print)
    handle = start(broker, print)
    let(handle.consumer, find)

    def submit(jobs):
        raise RuntimeError("the pool is closed")

    handle.pool.submit = submit
    broker.publish(named("x"))
    until(lambda: broker.size("q").dead == 1)
    assert "RuntimeError: the pool is closed" in broker.dead_letters("q")[0].reason


def test_a_question_that_never_ends_leaves_its_turn_to_others_when_its_worker_stops(start):
    stay, turns, ran = threading.Event(), Turns(), []
    brokers = MemoryBroker(), MemoryBroker()
    stuck, other = (start(broker, print) for broker in brokers)
    let(stuck.consumer, lambda name: stay.wait(BOUND), turns)
    let(other.consumer, Finder(into(ran)), turns)
    brokers[0].publish(named("x"))
    until(lambda: stuck.pool.running())
    brokers[1].publish(named("y"))
    until(lambda: brokers[1].size("q").leased == 1)
    stuck.stop(timeout=0.1)
    assert brokers[0].size("q") == (1, 0, 0, 0)
    until(lambda: ran == [0])
    stay.set()


@pytest.mark.parametrize("kind", ["memory", "redis_ack"])
def test_two_workers_find_the_same_and_run_each_message_once(kind, redis_url):
    ran, engines = [], [Engine({"REDIS_URL": redis_url}) for _ in range(2)]

    def finder(engine):
        def find(queue, name):
            return engine.task(into(ran), queue, name=name, broker_kind=kind)

        return find

    if kind == "memory":  # whose messages one engine has
        engines = engines[:1]
    tasks = []
    for engine in engines:
        engine.resolver = finder(engine)
        tasks.append(engine.remote("both", name="nobody", broker_kind=kind))
        engine.consume(tasks[-1])
    for name in ("a", "b"):
        target = engines[0].remote("both", name=name, broker_kind=kind)
        target.push_many([{"n": n} for n in range(100)])
    try:
        until(lambda: len(ran) >= 200 and tasks[0].size() == (0, 0, 0, 0))
        assert Counter(ran) == Counter([*range(100)] * 2)
    finally:
        for engine in engines:
            engine.close()


def test_a_task_without_a_name_is_alone(start):
    engine = Engine()
    engine.resolver = lambda queue, name: engine.remote(queue, name=name, broker_kind="memory")
    ran = []
    task = engine.task(into(ran), "q", broker_kind="memory")
    engine.consume(task)
    other = engine.remote("q", name="x", broker_kind="memory")
    other.push()
    until(lambda: task.size().dead == 1)
    assert "has a task without a name" in next(iter(task.dead_letters())).reason
    engine.close()


def test_rates_of_one_queue_are_one():
    engine = Engine()
    engine.resolver = lambda queue, name: engine.remote(
        queue, name=name, broker_kind="memory", qps=7
    )
    task = engine.remote("q", name="nobody", broker_kind="memory")
    engine.consume(task)
    engine.remote("q", name="x", broker_kind="memory").push()
    until(lambda: task.size().dead == 1)
    assert "differ in qps" in next(iter(task.dead_letters())).reason
    engine.close()


def test_limit_of_a_question_is_a_minute():
    assert resolver_module.LIMIT == child_module.LIMIT == 60.0


def test_an_empty_name_is_not_asked_for():
    job = Job()
    job.extra, job.delivery = {"task": ""}, Delivery((0, 0), b"")
    answers = [(job, Unknown(""))]
    question = Plan("", "q", None, None, unbound)
    asking = Asking(question, print, ThreadPool(1), {}, Turns(), lambda: None)
    assert asking.sift(answers) == []
    assert answers == [(job, Unknown(""))]
