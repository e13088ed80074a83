"""The consumer where its broker leases what comes in the same step as it waits."""

from __future__ import annotations

import threading
import time

import pytest
from doubles import bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.controls.rate import Rate
from fsdf_engine.core import consumer as consumers
from fsdf_engine.errors import Unavailable
from fsdf_engine.pools.threads import ThreadPool


class Leasing(MemoryBroker):
    """Leases at the end of each wait, also of one that is woken; `calls` are (name, limit)."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.broken = [], lambda: None, 0

    def limits(self):
        return [limit for name, limit in self.calls if name == "fetch_next"]

    def subscribe(self, queue, *, lease):
        sub = super().subscribe(queue, lease=lease)
        fetch = sub.fetch

        def noted(limit, max_bytes):
            self.calls.append(("fetch", limit))
            return fetch(limit, max_bytes)

        def fetch_next(limit, max_bytes, timeout):
            self.calls.append(("fetch_next", limit))
            if self.broken:
                self.broken -= 1
                raise Unavailable("down")
            sub.wait(timeout)
            self.before()
            return fetch(limit, max_bytes)

        sub.fetch, sub.fetch_next, sub.emptied = noted, fetch_next, True
        return sub


def test_as_much_is_leased_as_there_is_room_for_when_the_wait_begins(start):
    broker, began, go = Leasing(), [], threading.Event()

    def fn(n):
        began.append(n)
        assert go.wait(BOUND)

    consumer = start(broker, fn).consumer
    until(lambda: broker.limits() == [4])
    broker.publish(bodies(1))
    until(lambda: broker.limits() == [4, 3])
    broker.publish(bodies(2))
    until(lambda: len(began) == 3 and broker.limits() == [4, 3, 1])
    assert broker.calls[0] == ("fetch", 4)
    assert len(broker.calls) == 4
    go.set()
    until(lambda: consumer.outbox.settled == 3)


@pytest.mark.parametrize("end", ["pause", "stop"])
def test_what_is_leased_when_it_is_to_lease_no_more_goes_back(start, end):
    broker, ran = Leasing(), []
    handle = start(broker, lambda n: ran.append(n))
    until(broker.limits)
    broker.before = lambda: broker.publish(bodies(1))  # as the wait is woken
    getattr(handle, end)()
    until(lambda: broker.size("q") == (1, 0, 0, 0) and not handle.consumer.held())
    assert ran == []


def test_under_a_valve_and_in_a_shared_pool_it_only_waits(start, monkeypatch):
    monkeypatch.setattr(consumers, "IDLE", 600.0)
    paced, ran = Leasing(), []
    start(paced, lambda n: ran.append(n), valve=Rate(1000.0))
    shared, pool = Leasing(), ThreadPool(4)
    first = start(shared, lambda n: ran.append(n), pool, shared=True).consumer
    until(shared.limits)  # it is alone
    start(shared, lambda n: ran.append(n), pool, queue="other", shared=True)
    until(lambda: first._share.granted == 0)  # and is told at once that it is so no more
    for broker in (paced, shared):
        broker.publish(bodies(3))
    until(lambda: len(ran) == 6)
    assert paced.limits() == []
    assert shared.limits() == [4]
    pool.close(BOUND)


@pytest.mark.parametrize("first", [True, False], ids=["fetched", "waited for"])
def test_what_has_just_come_is_not_taken_for_stalled(start, monkeypatch, first):
    class Late(ThreadPool):
        """Starts nothing for now, and counts what is taken back."""

        kept, taken = (), 0

        def submit(self, jobs):
            self.kept = [*self.kept, *jobs]

        def waiting(self):
            return len(self.kept)

        def withdraw(self, limit, owner=None, *, acked=True):
            self.taken += len(self.kept)
            kept, self.kept = self.kept, ()
            return kept

    monkeypatch.setattr(consumers, "STALL", 5.0)
    broker, pool = Leasing(), Late(4)
    if first:
        broker.publish(bodies(1))
    consumer = start(broker, lambda n: None, pool).consumer
    if not first:
        until(broker.limits)
        consumer._ended_at = time.monotonic() - 60.0  # it has waited for so long
        broker.publish(bodies(1))
    until(lambda: broker.limits()[-1:] == [3])
    if not first:
        consumer.subscription.wake()
        until(lambda: broker.limits() == [4, 3, 3])
    assert pool.taken == 0


def test_after_a_wait_that_fails_it_fetches(start):
    broker, ran = Leasing(), []
    broker.broken = 2
    start(broker, lambda n: ran.append(n))
    until(lambda: len(broker.calls) >= 5)
    assert [name for name, _ in broker.calls[:5]] == ["fetch", "fetch_next"] * 2 + ["fetch"]
    broker.publish(bodies(1))
    until(lambda: ran == [0])
