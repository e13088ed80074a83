"""Acknowledged ahead of the start: in groups, as few as keep the slots busy, and never unheard."""

from __future__ import annotations

import logging
import threading

import pytest
from doubles import Results, bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Capability, Delivery, Job, Outgoing, Plan
from fsdf_engine.core import consumer as consumer_module
from fsdf_engine.core import outage as outage_module
from fsdf_engine.core import worker as worker_module
from fsdf_engine.core.binding import Binding
from fsdf_engine.core.early import Early
from fsdf_engine.core.prefetch import MOST, Prefetch
from fsdf_engine.core.run import compile_plan
from fsdf_engine.errors import Unanswered, Unavailable
from fsdf_engine.pools.threads import ThreadPool
from fsdf_engine.result_sink import result_sink

EARLY = {"early": True}
WITH_RESULTS = {**EARLY, "sinks": (result_sink(60.0),)}


class Acks(MemoryBroker):
    """Writes down each call of settle; `before` and `after` may raise instead of an answer."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.after = [], lambda: None, lambda: None
        self.lose_all = False

    def subscribe(self, queue, *, lease):
        subscription = super().subscribe(queue, lease=lease)
        settle = subscription.settle

        def told(batch):
            self.before()
            lost = settle(batch)
            self.calls.append([type(verdict).__name__ for _, verdict in batch])
            self.after()
            return [lease for lease, _ in batch] if self.lose_all else lost

        subscription.settle = told
        return subscription


class Held:
    """Runs that wait for `go`; says which have started."""

    def __init__(self):
        self.go, self.started = threading.Event(), []

    def __call__(self, n):
        self.started.append(n)
        self.go.wait(BOUND)


def into(seen):
    return lambda n: seen.append(n)


def ended(handle, count):
    until(lambda: handle.consumer.outbox.settled >= count and not handle.consumer.held())


def times(count, error):
    """Return what raises the error for the first so many calls."""
    left = [error] * count

    def fail():
        if left:
            raise left.pop()

    return fail


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(outage_module, "BACKOFF", (0.01,))


@pytest.fixture
def eager(monkeypatch):
    """So many are acknowledged beyond the free slots as if runs had been short."""
    monkeypatch.setattr(Prefetch, "depth", lambda self, *_: int(self._rate))
    monkeypatch.setattr(Prefetch, "ahead", lambda self, *_: min(6, int(self._rate)))
    made = Prefetch.__init__
    monkeypatch.setattr(
        Prefetch, "__init__", lambda *args: made(*args) or setattr(args[0], "_rate", 100.0)
    )


def test_five_milliseconds_of_work_are_acknowledged_ahead():
    prefetch = Prefetch(ceiling=1000)
    assert prefetch.ahead(0, 1.0, 0) == 0  # nothing is known
    for tenth in range(1, 20):
        ahead = prefetch.ahead(1000 * tenth, 1.0 + tenth / 10, 0)
    assert 45 <= ahead <= 50
    for tenth in range(1, 20):
        ahead = prefetch.ahead(10**6 * tenth, 3.0 + tenth / 10, 0)
    assert ahead == MOST
    assert Prefetch().ahead(0, 1.0, 40) == 40  # as a pool needs to keep its slots busy
    assert Prefetch(ceiling=10).ahead(0, 1.0, 40) == 10


def test_what_goes_back_tells_nothing_of_speed_even_if_it_ends_later():
    prefetch = Prefetch()
    prefetch.skip(400)
    depths = [prefetch.depth(*told) for told in ((0, 1.0), (300, 2.0), (400, 3.0), (400, 4.0))]
    assert depths == [0, 0, 0, 0]
    assert prefetch.depth(500, 5.0) == 10  # and what runs tells as before


def test_of_long_runs_as_many_are_acknowledged_as_there_are_free_slots(start, eager, monkeypatch):
    monkeypatch.setattr(Prefetch, "ahead", lambda *_: 0)
    broker, run = Acks(), Held()
    broker.publish(bodies(10))
    handle = start(broker, run, spec=EARLY)
    until(lambda: len(run.started) == 4)
    assert broker.calls == [["Ack"] * 4]
    assert broker.size("q").leased == 6
    run.go.set()
    ended(handle, 10)
    assert sorted(run.started) == list(range(10))


def test_short_ones_share_a_round_trip(start, eager):
    broker, run = Acks(), Held()
    broker.publish(bodies(10))
    handle = start(broker, run, spec=EARLY)
    until(lambda: len(run.started) == 4)
    run.go.set()
    ended(handle, 10)
    assert broker.calls == [["Ack"] * 10]


def test_what_stalls_goes_back_unless_it_is_acknowledged(start, eager, monkeypatch):
    monkeypatch.setattr(consumer_module, "STALL", 0.02)
    broker, run = Acks(), Held()
    broker.publish(bodies(20))
    handle = start(broker, run, spec=EARLY)
    until(lambda: broker.size("q").waiting)
    until(lambda: broker.size("q") == (10, 0, 0, 0) and handle.consumer.held() == 10)
    assert handle.consumer.fetched == 20
    assert broker.calls == [["Ack"] * 10, ["Release"] * 10]
    run.go.set()
    ended(handle, 30)
    assert sorted(run.started) == list(range(20))


def test_a_pause_lets_the_acknowledged_run(start, eager):
    broker, run = Acks(), Held()
    broker.publish(bodies(20))
    handle = start(broker, run, spec=EARLY)
    until(lambda: len(run.started) == 4)
    handle.pause()
    until(lambda: broker.size("q").waiting == 10)
    run.go.set()
    ended(handle, 20)
    assert sorted(run.started) == list(range(10))


def test_a_long_pause_publishes_them_again_in_front(start, eager, monkeypatch):
    monkeypatch.setattr(consumer_module, "GRACE", 0.02)
    broker, run = Acks(), Held()
    broker.publish(bodies(20))
    handle = start(broker, run, spec=EARLY)
    until(lambda: len(run.started) == 4)
    handle.pause()
    until(lambda: broker.size("q").waiting == 16)
    with broker._queue("q").changed:
        first = [entry.body for entry in [*broker._queue("q").ready[0]][:6]]
    assert sorted(first) == [
        b'{"n":%d,"extra":{"task_id":"%d","sends":1}}' % (n, n) for n in range(4, 10)
    ]
    run.go.set()


def test_a_stop_runs_what_a_slot_is_free_for_within_the_grace(start, eager):
    broker, run = Acks(), Held()
    broker.publish(bodies(20))
    handle = start(broker, run, spec=EARLY)
    until(lambda: len(run.started) == 4)
    stopping = threading.Thread(target=handle.stop)
    stopping.start()
    until(lambda: broker.size("q").waiting == 10)
    run.go.set()
    stopping.join(BOUND)
    assert sorted(run.started) == list(range(10))
    assert broker.size("q") == (10, 0, 0, 0)


def test_a_stop_publishes_again_what_the_grace_is_too_short_for(start, eager):
    """Interrupted runs, too: nobody else has their messages."""
    broker = MemoryBroker()
    started, never = [], threading.Event()

    def run(n):
        started.append(n)
        while not never.wait(0.01):
            pass

    broker.publish(bodies(20))
    handle = start(broker, run, spec=EARLY)
    until(lambda: len(started) == 4)
    handle.stop(timeout=0.05)
    assert len(started) == 4
    assert broker.size("q") == (20, 0, 0, 0)


def test_one_that_no_interrupt_reaches_is_named_with_its_body(start, eager, caplog, monkeypatch):
    monkeypatch.setattr(worker_module, "UNWIND", 0.05)
    broker, run = MemoryBroker(), Held()
    broker.publish(bodies(1))
    handle = start(broker, run, ThreadPool(4), spec=EARLY)
    until(lambda: run.started)
    handle.stop(timeout=0.01)
    run.go.set()
    [told] = [r for r in caplog.records if "is not stored" in r.msg]
    assert told.levelno == logging.ERROR
    assert str(bodies(1)[0].body) in told.getMessage()


def test_an_outbox_that_cannot_store_names_the_acknowledged(start, caplog, monkeypatch):
    monkeypatch.setattr(worker_module, "FLUSH", 0.05)
    broker, results = MemoryBroker(), Results()
    results.broken = lambda records: Unanswered("down") if records else None
    broker.publish(bodies(3))
    handle = start(broker, lambda n: None, spec=WITH_RESULTS, results=results)
    until(lambda: handle.consumer.outbox.ended == 3)
    handle.stop()
    named = [r.getMessage() for r in caplog.records if "is not stored" in r.msg]
    assert len(named) == 3


def test_early_and_late_tasks_share_a_queue(start, eager):
    broker, seen = Acks(), []
    handle = start(broker, into(seen), ThreadPool(1))
    for name in ("early", "late"):
        plan = Plan(name, "q", None, None, Binding(into(seen)).bind, early=name == "early")
        handle.consumer.add(compile_plan(plan, into(seen)))
    for n in range(50):
        body = b'{"n":%d,"extra":{"task":"%s"}}' % (n, b"late" if n % 2 else b"early")
        broker.publish([Outgoing("q", str(n), body)])
    ended(handle, 50)
    assert sorted(seen) == list(range(50))
    assert sum(len(call) for call in broker.calls) == 50


def test_an_acknowledgement_without_an_answer_is_repeated_and_runs_once(start, quick, caplog):
    broker, seen = Acks(), []
    broker.after = times(3, Unanswered("cut"))
    broker.publish(bodies(10))
    handle = start(broker, into(seen), ThreadPool(10), spec=EARLY)
    ended(handle, 10)
    assert sorted(seen) == list(range(10))
    assert broker.size("q") == (0, 0, 0, 0)
    [told] = [r for r in caplog.records if "without an answer" in r.msg]
    assert told.args == (10,)


def test_nothing_starts_before_the_answer(start, quick):
    broker, seen, down = Acks(), [], threading.Event()

    def cut():
        down.set()
        raise Unanswered("cut")

    broker.after = cut
    broker.publish(bodies(4))
    handle = start(broker, into(seen), spec=EARLY)
    assert down.wait(BOUND)
    handle.pause()
    until(lambda: len(broker.calls) > 3)
    assert not seen
    assert broker.size("q") == (0, 0, 0, 0)
    broker.after = lambda: None
    ended(handle, 4)
    assert sorted(seen) == [0, 1, 2, 3]


def test_after_a_lease_it_is_a_dead_letter_rather_than_run_twice(start, quick):
    broker, results, seen = Acks(), Results(), []
    broker.after = times(1, Unanswered("cut"))
    handle = start(broker, into(seen), spec=WITH_RESULTS, results=results)
    handle.consumer.keeper.ours_until = lambda: 0.0
    broker.publish(bodies(2))
    ended(handle, 2)
    assert not seen
    assert results.statuses() == ["failed"] * 2
    assert broker.size("q") == (0, 0, 0, 2)


def test_a_stop_gives_back_what_is_perhaps_acknowledged_and_says_so(start, quick, caplog):
    broker, seen, down = Acks(), [], threading.Event()

    def cut():
        down.set()
        raise Unavailable("cut")

    broker.before = cut
    broker.publish(bodies(4))
    handle = start(broker, into(seen), spec=EARLY)
    assert down.wait(BOUND)
    give_up = handle.consumer._early.give_up

    def and_heal():
        jobs = give_up()
        broker.before = lambda: None
        return jobs

    handle.consumer._early.give_up = and_heal
    handle.stop()
    assert not seen
    assert broker.size("q") == (4, 0, 0, 0)
    [told] = [r for r in caplog.records if "perhaps acknowledged" in r.msg]
    assert told.bodies == [item.body for item in bodies(4)]


def test_what_the_first_answer_names_lost_does_not_start(start):
    broker, results, seen = Acks(), Results(), []
    broker.lose_all = True
    broker.publish(bodies(4))
    handle = start(broker, into(seen), spec=WITH_RESULTS, results=results)
    ended(handle, 4)
    assert not seen
    assert not results.records
    assert not handle.consumer.keeper.lost | handle.consumer.keeper.held


def test_a_valve_acknowledges_its_window_in_one_call(start):
    class Valve:
        def permits(self, wanted, now):
            return min(wanted, 8), 0.01

        def starts(self, count, now):
            return [now] * count

    broker, seen = Acks(), []
    broker.publish(bodies(8))
    handle = start(broker, into(seen), ThreadPool(8), spec=EARLY, valve=Valve())
    ended(handle, 8)
    assert broker.calls == [["Ack"] * 8]


def test_without_leases_little_is_fetched_ahead(start):
    class NoLeases(MemoryBroker):
        capabilities = MemoryBroker.capabilities & ~Capability.LEASE

    handle = start(NoLeases(), lambda n: None)
    other = start(MemoryBroker(), lambda n: None)
    prefetches = [h.consumer._prefetch for h in (handle, other)]
    for prefetch in prefetches:
        prefetch._rate = 1000.0
    assert [prefetch.depth(0, 0.0) for prefetch in prefetches] == [5, 100]


def test_a_child_that_is_forked_in_an_acknowledgement_starts_nothing_of_its_parents(start):
    """Under a hub it has a copy of the greenlet that waits for the answer."""
    consumer = start(MemoryBroker(), lambda n: None).consumer

    class Forks:
        def settle(self, batch):
            early.disown()
            return ()

    early = Early(Forks(), consumer.keeper, consumer.marking, pytest.fail)
    job = Job()
    job.plan = Plan("", "q", None, None, Binding(lambda n: None).bind, early=True)
    job.delivery, job.acked = Delivery((1, 1), b""), False
    early.line.append(job)
    early.choose(1)
    assert not early.acknowledge()
    assert not len(early)


@pytest.mark.parametrize("spec", [EARLY, {}], ids=["early", "late"])
def test_what_the_broker_has_just_forgotten_is_no_lost_lease(start, caplog, spec):
    """Leases are renewed while the broker's answer to a settlement is on its way."""
    broker, seen = Acks(), []
    handle = start(broker, into(seen), spec=spec)
    keeper, found = handle.consumer.keeper, []

    def renew():
        keeper.extend()
        found.append(set(keeper.lost))

    broker.after = renew
    broker.publish(bodies(10))
    ended(handle, 10)
    assert found
    assert not any(found)
    assert sorted(seen) == list(range(10))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert not keeper.settling
    assert not keeper.leaving
