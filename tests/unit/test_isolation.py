"""Messages that were lost with their workers run in ever smaller company, and at last alone."""

from __future__ import annotations

import threading
import time

import pytest
from doubles import bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Delivery, Job
from fsdf_engine.core.ending import POISON
from fsdf_engine.core.isolation import ORDINARY, PATIENCE, Isolation, company
from fsdf_engine.pools.threads import ThreadPool


def jobs(*lost):
    made = []
    for count in lost:
        job = Job()
        job.delivery = Delivery((0, len(made)), b"{}", deliveries=count)
        made.append(job)
    return made


class Suspicious(MemoryBroker):
    """Says of some messages that they were lost with their workers; `lost` is by their `n`."""

    def __init__(self, lost):
        super().__init__()
        self.lost, self.limits = lost, []

    def subscribe(self, queue, *, lease):
        sub = super().subscribe(queue, lease=lease)
        fetch = sub.fetch

        def suspicious(limit, max_bytes):
            self.limits.append(limit)
            found = fetch(limit, max_bytes)
            for delivery in found:
                delivery.deliveries = self.lost.get(int(delivery.body.split(b",")[0][5:]), 0)
            return found

        sub.fetch = suspicious
        return sub


@pytest.mark.parametrize("slots", [1, 4, 50, 500, 5000])
def test_company_shrinks_until_a_message_is_alone(slots):
    sizes = [company(slots, lost) for lost in range(ORDINARY + 1, POISON + 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < slots or slots == 1
    assert min(sizes) >= 1
    if slots <= 500:
        assert company(slots, POISON) == 1


def test_what_was_lost_once_or_twice_is_ordinary():
    isolation, batch = Isolation(50), jobs(0, 1, ORDINARY)
    assert isolation.split(batch, 40, 0.0) == (batch, ())
    assert isolation.most == 0


def test_the_worst_suspects_run_first_and_the_others_go_back_in_order():
    isolation = Isolation(16)
    batch = jobs(0, ORDINARY + 1, 0, ORDINARY + 1)
    now, back = isolation.split(batch, 0, 0.0)
    assert now == [batch[1], batch[3]]  # sixteen slots, an eighth
    assert back == [batch[0], batch[2]]
    assert isolation.space(2, {batch[1], batch[3]}, 0.0) == 0
    assert isolation.space(0, set(), 0.0) == 2


def test_the_limit_ends_with_a_fetch_without_suspects():
    isolation = Isolation(16)
    isolation.split(jobs(POISON), 0, 0.0)
    assert isolation.most == 1
    fresh = jobs(0)
    assert isolation.split(fresh, 0, 0.0) == (fresh, ())
    assert isolation.most == 0


def test_a_suspect_leaves_others_time_to_end_but_does_not_wait_for_ever():
    isolation, batch = Isolation(16), jobs(POISON)
    assert isolation.split(batch, 3, 0.0) == ((), batch)
    assert isolation.space(3, set(), PATIENCE / 2) == 0
    assert isolation.space(3, set(), PATIENCE) == 1
    assert isolation.split(batch, 3, PATIENCE) == (batch, [])
    assert isolation.space(4, set(batch), 5 * PATIENCE) == 0  # and then it has its time


def test_a_suspect_runs_alone_and_the_others_after_it(start):
    broker = Suspicious({7: POISON})
    broker.publish(bodies(20))
    running, together, release = set(), [], threading.Event()

    def fn(n):
        running.add(n)
        if n == 7:
            assert release.wait(BOUND)
            together.append(set(running))
        running.discard(n)

    pool = ThreadPool(50)
    consumer = start(broker, fn, pool=pool).consumer
    until(lambda: broker.size("q") == (19, 0, 1, 0))
    release.set()
    until(lambda: broker.size("q") == (0, 0, 0, 0) and consumer.outbox.settled >= 20)
    assert together == [{7}]
    assert len(broker.limits) <= 8  # what goes back is not fetched over and over


def test_many_suspects_run_one_after_the_other(start):
    broker = Suspicious(dict.fromkeys(range(10), POISON))
    broker.publish(bodies(12))
    lock, most, seen = threading.Lock(), [], []

    def fn(n):
        free = lock.acquire(blocking=False)
        seen.append(n)
        most.append(free or n >= 10)
        if free:
            lock.release()

    start(broker, fn, pool=ThreadPool(8))
    until(lambda: broker.size("q") == (0, 0, 0, 0))
    assert sorted(seen) == list(range(12))
    assert all(most)


def test_what_was_lost_too_often_is_given_up_and_isolates_nobody(start):
    broker = Suspicious({0: POISON + 1})
    broker.publish(bodies(5))
    seen = []
    start(broker, lambda n: seen.append(n))
    until(lambda: broker.size("q") == (0, 0, 0, 1) and len(seen) == 4)
    assert broker.dead_letters("q")[0].reason.startswith("lost")


def test_what_goes_back_is_not_taken_for_speed(start):
    """Else a worker would hold far more than it can run, for the next killer to convict."""
    broker = Suspicious({0: POISON})
    broker.publish(bodies(400))
    release = threading.Event()

    def fn(n):
        assert release.wait(BOUND)

    consumer = start(broker, fn, pool=ThreadPool(500)).consumer
    until(lambda: broker.size("q") == (399, 0, 1, 0))
    assert consumer._prefetch.depth(consumer.outbox.last_ended(), time.monotonic()) == 0
    release.set()
    until(lambda: broker.size("q") == (0, 0, 0, 0))
