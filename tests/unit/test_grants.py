"""Consumers that share a pool: what they hold together, and whose turn it is."""

from __future__ import annotations

import threading

import pytest
from doubles import bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Outgoing
from fsdf_engine.core import consumer as consumer_module
from fsdf_engine.core.ending import POISON
from fsdf_engine.core.grants import Share
from fsdf_engine.errors import Unavailable
from fsdf_engine.pools.threads import ThreadPool

NAMES = ("a", "b", "c", "d", "e")


class Alone:
    """A pool as far as shares know it."""

    size = 4


class Member(Share):
    """A consumer as far as shares know it."""

    def __init__(self, pool, ceiling=0):
        self.have = self.woken = self.roused = 0
        calls = self.count, self.rouse_counted
        super().__init__(pool, ceiling, lambda: self.have, lambda: self.have, *calls)
        self.join()

    def count(self):
        self.woken += 1

    def rouse_counted(self):
        self.roused += 1

    def fetch(self, wanted, depth=0, worth=0):
        got = self.ask(wanted, worth, depth)
        if got:
            self.have += got
            self.took(got)
        return got


def test_one_consumer_gets_what_it_wants_and_nothing_is_locked():
    pool = Alone()
    one = Member(pool, 500)
    pool.grants._lock = None  # what is not there cannot be taken
    assert one.ask(400, 100, 400) == 400
    assert one.ask(50, 100, 400) == 0
    one.rest()
    one.made()


def test_the_first_one_is_roused_when_it_is_alone_no_more():
    pool = Alone()
    members = [Member(pool) for _ in range(3)]
    assert [member.roused for member in members] == [1, 0, 0]
    assert not members[0].grants.alone


def test_all_together_hold_the_size_and_one_prefetch():
    pool = Alone()
    members = [Member(pool, 10) for _ in range(5)]
    for _ in range(3):
        for member in members:
            member.fetch(14 - member.have, depth=10)
    assert sum(member.have for member in members) == 14


def test_what_is_granted_counts_until_it_was_fetched():
    pool = Alone()
    one, other = Member(pool), Member(pool)
    assert one.ask(4, 0, 0) == 4
    assert other.ask(4, 0, 0) == 0
    one.rest()  # it has found nothing
    assert other.woken == 1
    assert other.ask(4, 0, 0) == 4


def test_who_has_taken_all_it_could_get_waits_and_who_found_less_does_not():
    pool = Alone()
    one, other = Member(pool), Member(pool)
    one.fetch(2)
    assert one.waits
    one.ask(2, 0, 0)
    one.took(1)
    assert not one.waits
    one.ask(2, 0, 0)
    one.took(2, more=False)
    assert not one.waits
    assert other.fetch(4) == 2


def test_a_freed_slot_goes_to_who_was_served_longest_ago():
    pool = Alone()
    pool.size = 1
    members = [Member(pool) for _ in range(3)]
    served, running = [], None
    for _ in range(9):
        if running:
            running.have -= 1
        for member in reversed(members):  # whoever asks first
            before, running = running, member if member.fetch(1) else running
            if running is not before:
                served.append(members.index(running))
    first = served[:3]
    assert sorted(first) == [0, 1, 2]
    assert served[:6] == first * 2


def test_a_freed_slot_goes_to_who_holds_fewest_and_slow_runs_keep_no_queue_waiting():
    pool = Alone()
    slow, quick = Member(pool), Member(pool)
    assert slow.fetch(4) == 4
    assert quick.fetch(4) == 0
    for held in (3, 2):
        slow.have -= 1
        assert slow.fetch(1) == 0
        assert quick.woken
        assert quick.fetch(1) == 1
        quick.have -= 1  # ended at once, and it is its turn again
        assert slow.ask(1, 0, 0) == 0
        assert quick.fetch(4) == 1
        assert slow.have == held
    slow.have -= 1
    assert slow.fetch(1) == 1  # two each


def test_few_are_worth_a_round_trip_when_others_wait():
    pool = Alone()
    one, other = Member(pool, 100), Member(pool, 100)
    one.have = 90
    assert one.ask(14, 25, 100) == 0
    assert other.ask(4, 0, 0) == 0  # it is the turn of the first one, which is told
    assert one.woken
    assert one.ask(14, 25, 100) == 12
    assert other.woken
    assert other.ask(4, 0, 0) == 1


def test_who_rests_or_has_left_waits_no_more_but_its_runs_count():
    pool = Alone()
    one, other = Member(pool), Member(pool)
    one.fetch(4)
    one.ask(1, 0, 0)
    other.ask(4, 0, 0)
    one.leave()
    one.have = 1
    assert other.ask(4, 0, 0) == 3
    other.rest()
    one.have = 0
    assert other.ask(4, 0, 0) == 4
    assert pool.grants.alone


def test_forked_child_begins_anew():
    pool = Alone()
    one = Member(pool)
    pool.grants._lock.acquire()
    one.disown()
    assert Member(pool).fetch(4) == 4


class Meter:
    """Tasks of several queues on one pool; `peak` is the most that all held at once."""

    def __init__(self, start, broker, pool, functions, **options):
        self.consumers, self.peak = [], 0
        for queue, fn in functions.items():
            handle = start(broker, self.measured(fn), pool, shared=True, queue=queue, **options)
            self.consumers.append(handle.consumer)

    def measured(self, fn):
        def run(n):
            self.peak = max(self.peak, sum(c.held() for c in self.consumers.copy()))
            fn(n)

        return run


@pytest.mark.parametrize("queues", [2, 3, 5])
@pytest.mark.parametrize("prefetch", [0, 20])
def test_queues_of_one_pool_hold_its_size_and_one_prefetch(start, queues, prefetch):
    broker, pool, names = MemoryBroker(), ThreadPool(4), NAMES[:queues]
    for name in names:
        broker.publish(bodies(300, name))
    meter = Meter(start, broker, pool, dict.fromkeys(names, lambda n: None), ceiling=prefetch)
    until(lambda: all(broker.size(name) == (0, 0, 0, 0) for name in names))
    assert meter.peak <= 4 + prefetch
    assert all(consumer.most_held <= 4 + prefetch for consumer in meter.consumers)


def test_queues_with_work_take_turns(start):
    broker, pool, order, gate = MemoryBroker(), ThreadPool(1), [], threading.Semaphore(0)
    for name in NAMES:
        broker.publish(bodies(20, name))

    def work(name):
        def fn(n):
            gate.acquire()
            order.append(name)

        return fn

    def more(consumer):
        return broker.size(consumer.queue).waiting

    meter = Meter(start, broker, pool, {name: work(name) for name in NAMES}, ceiling=0)
    for n in range(100):
        until(lambda: any(c.held() for c in meter.consumers))  # who has none after that waits
        until(lambda: all(c.held() or c._share.waits for c in meter.consumers if more(c)))
        gate.release()
        until(lambda n=n: len(order) > n)
    turns = [set(order[at : at + 5]) for at in range(5, 95, 5)]
    assert turns == [set(NAMES)] * len(turns)


def test_a_slow_queue_leaves_slots_to_a_quick_one(start):
    broker, pool, go, ran = MemoryBroker(), ThreadPool(4), threading.Semaphore(0), []
    broker.publish(bodies(50, "slow"))
    Meter(start, broker, pool, {"slow": lambda n: go.acquire()}, ceiling=0)
    until(lambda: len(pool.running()) == 4)
    broker.publish(bodies(500, "quick"))
    start(broker, lambda n: ran.append(n), pool, shared=True, queue="quick")
    go.release()  # of one slow run
    until(lambda: len(ran) == 500)
    assert broker.size("slow").waiting >= 45  # others of it would have kept all slots busy
    until(lambda: len(pool.running()) == 4)  # which the quick queue leaves when it is empty
    go.release(50)
    until(lambda: broker.size("slow") == (0, 0, 0, 0))


@pytest.mark.parametrize("end", ["stop", "pause", "broken"])
def test_what_one_gives_up_is_granted_to_the_others(start, end):
    broker, pool, go, ran = MemoryBroker(), ThreadPool(2), threading.Semaphore(0), []
    broker.publish([*bodies(50, "a"), *bodies(50, "b")])
    one = start(broker, lambda n: go.acquire(), pool, shared=True, queue="a")
    until(lambda: len(pool.running()) == 2)
    start(broker, lambda n: ran.append(n), pool, shared=True, queue="b")
    if end == "broken":

        def fetch(limit, max_bytes):
            raise Unavailable("down")

        one.consumer.subscription.fetch = fetch
        go.release()
    elif end == "pause":
        one.pause()
        go.release()
    else:
        go.release(2)
        stopping = threading.Thread(target=one.stop)
        stopping.start()
        go.release(50)
        stopping.join(BOUND)
    until(lambda: len(ran) == 50)
    one.resume()
    go.release(100)


def test_suspects_of_one_queue_run_in_small_company_on_a_shared_pool(start):
    broker, pool, seen, lock, most = MemoryBroker(), ThreadPool(8), [], threading.Lock(), []
    subscribe = broker.subscribe

    def suspicious(queue, *, lease):
        sub = subscribe(queue, lease=lease)
        fetch = sub.fetch

        def fetch_suspects(limit, max_bytes):
            found = fetch(limit, max_bytes)
            for delivery in found:
                delivery.deliveries = POISON if queue == "a" else 0
            return found

        sub.fetch = fetch_suspects
        return sub

    broker.subscribe = suspicious
    broker.publish([*bodies(10, "a"), *bodies(300, "b")])

    def alone(n):
        most.append(lock.acquire(blocking=False))
        lock.release()

    Meter(start, broker, pool, {"a": alone, "b": lambda n: seen.append(n)})
    until(lambda: len(most) == 10 and len(seen) == 300)
    assert all(most)
    until(lambda: broker.size("a") == broker.size("b") == (0, 0, 0, 0))


def test_a_message_of_any_queue_wakes_its_consumer_on_a_shared_pool(start, monkeypatch):
    monkeypatch.setattr(consumer_module, "IDLE", 3600.0)  # it looks around by itself
    broker, pool, ran = MemoryBroker(), ThreadPool(2), []
    Meter(start, broker, pool, dict.fromkeys(NAMES, lambda n: ran.append(n)), lease=10_800.0)
    for n in range(30):
        broker.publish([Outgoing(NAMES[n % 5], "", b'{"n":%d}' % n)])
        until(lambda n=n: len(ran) > n)
    assert ran == list(range(30))


def test_a_queue_that_is_empty_leaves_its_turn_to_others(start, monkeypatch):
    monkeypatch.setattr(consumer_module, "IDLE", 3600.0)  # its wait for messages
    broker, pool, ran, go = MemoryBroker(), ThreadPool(1), [], threading.Event()
    broker.publish([*bodies(1, "a"), *bodies(5, "b")])

    def fn(n):
        go.wait(BOUND)
        ran.append(n)

    subscribe = broker.subscribe

    def telling(queue, *, lease):
        sub = subscribe(queue, lease=lease)
        fetch = sub.fetch

        def fetch_and_tell(limit, max_bytes):
            found = fetch(limit, max_bytes)
            sub.emptied = not broker.size(queue).waiting
            return found

        sub.fetch = fetch_and_tell
        return sub

    broker.subscribe = telling
    start(broker, fn, pool, shared=True, queue="a", ceiling=0, lease=10_800.0)
    until(lambda: pool.running())
    other = start(broker, fn, pool, shared=True, queue="b", ceiling=0, lease=10_800.0).consumer
    until(lambda: other._share.waits)
    go.set()
    until(lambda: len(ran) == 6)
