"""The part of the suite of brokers that is about waiting and leasing in one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from ..contracts import Broker, Capability, Delivery, Subscription
from ..outcomes import ACK
from .deliveries import (
    BOUND,
    MB,
    QUEUE,
    Open,
    bodies,
    collect,
    counts,
    has,
    needs,
    next_some,
    outgoing,
    sized,
)  # fmt: skip
from .leases import LeasesConformance, ending

__all__ = ["WaitingConformance"]


class WaitingConformance(LeasesConformance):
    """Derived from by `BrokerConformance`."""

    def test_fetch_next_brings_what_arrives_or_leaves_it_to_fetch(
        self, broker: Broker, open: Open
    ) -> None:
        sub = open()
        found = came(sub, lambda: broker.publish([outgoing(1), outgoing(2)]))
        taken = [*(found or ()), *collect(broker, sub, 2 - len(found or ()))]
        assert sorted(bodies(taken)) == [b'{"n":1}', b'{"n":2}']
        assert all(counts(broker, d, 0) for d in taken)
        assert broker.size(QUEUE) == sized(broker, 0, 0, 2, 0)
        assert not sub.settle([(d.lease, ACK) for d in taken])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_fetch_next_leases_no_more_than_its_limit(self, broker: Broker, open: Open) -> None:
        sub = open()
        found = came(sub, lambda: broker.publish([outgoing(n) for n in range(5)]), limit=2) or ()
        assert len(found) <= 2
        assert broker.size(QUEUE) == sized(broker, 5 - len(found), 0, len(found), 0)

    def test_fetch_next_only_waits_where_nothing_is_leased(
        self, broker: Broker, open: Open
    ) -> None:
        found = came(open(), lambda: broker.publish([outgoing(1)]))
        assert found is None or has(broker, Capability.LEASE)

    def test_fetch_next_sees_what_came_before_it(self, broker: Broker, open: Open) -> None:
        sub = open()
        sub.fetch(1, MB)
        broker.publish([outgoing(1)])
        began = time.monotonic()
        found = sub.fetch_next(1, MB, BOUND)
        assert time.monotonic() - began < BOUND / 2
        assert bodies(found or collect(broker, sub, 1)) == [b'{"n":1}']

    def test_fetch_next_ends_at_its_timeout(self, broker: Broker, open: Open) -> None:
        sub = open()
        sub.fetch(1, MB)
        began = time.monotonic()
        assert not sub.fetch_next(1, MB, 0.05)
        assert 0.04 < time.monotonic() - began < BOUND / 2

    def test_what_comes_after_wake_is_left_in_the_queue(self, broker: Broker, open: Open) -> None:
        sub = open()
        assert came(sub, sub.wake) is None
        broker.publish([outgoing(1)])
        sub.wake()
        assert sub.fetch_next(1, MB, BOUND) is None
        assert broker.size(QUEUE) == sized(broker, 1, 0, 0, 0)
        assert bodies(collect(broker, sub, 1)) == [b'{"n":1}']

    def test_delayed_and_prior_messages_and_ended_leases_come_next(
        self, broker: Broker, open: Open
    ) -> None:
        sub = open()
        lines = (0, -3) if has(broker, Capability.PRIORITY) else (0,)
        for priority in lines if has(broker, Capability.DELAY) else ():
            broker.publish([outgoing(1, delay=0.15, priority=priority)])
            assert bodies(next_some(sub)) == [b'{"n":1}']
        if has(broker, Capability.PRIORITY):
            for priority in (7, -9):
                broker.publish([outgoing(priority, priority=priority)])
                assert [d.priority for d in next_some(sub)] == [priority]
        if has(broker, Capability.LEASE):
            sub.rest()
            broker.publish([outgoing(2)])
            short = ending(broker, open)
            assert len(next_some(short)) == 1
            self.lose(broker, short)
            short.close()
            [d] = next_some(sub)
            assert counts(broker, d, 1)

    def test_ended_leases_come_back_although_others_arrive_all_the_time(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.LEASE)
        sub, got, n = open(), list[Delivery](), 1
        broker.publish([outgoing(0)])
        short = ending(broker, open)
        assert len(next_some(short)) == 1
        self.lose(broker, short)
        short.close()
        end = time.monotonic() + BOUND
        while b'{"n":0}' not in bodies(got) and time.monotonic() < end:
            broker.publish([outgoing(n)])
            got += next_some(sub, 1)
            n += 1
        assert all(counts(broker, d, int(d.body == b'{"n":0}')) for d in got)
        assert bodies(got).count(b'{"n":0}') == 1

    def test_several_that_wait_never_share_a_message(self, broker: Broker, open: Open) -> None:
        subs = [open() for _ in range(3)]
        got: list[list[Delivery]] = [[] for _ in subs]
        over = threading.Event()
        threads = [
            threading.Thread(target=receive, args=(sub, mine, over))
            for sub, mine in zip(subs, got, strict=True)
        ]
        for thread in threads:
            thread.start()
        for n in range(0, 300, 3):
            broker.publish([outgoing(n + k) for k in range(3)])
        end = time.monotonic() + BOUND
        while sum(map(len, got)) < 300 and time.monotonic() < end:
            threads[0].join(0.01)
        over.set()
        for sub in subs:
            sub.wake()
        for thread in threads:
            thread.join()
        found = [d for mine in got for d in mine]
        assert sorted(bodies(found)) == sorted(outgoing(n).body for n in range(300))
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)


def came(
    sub: Subscription, happens: Callable[[], object], limit: int = 10
) -> Sequence[Delivery] | None:
    """Return what `fetch_next` has brought, during which something happens."""
    sub.fetch(1, MB)
    found: list[Sequence[Delivery] | None] = []
    waiter = threading.Thread(target=lambda: found.append(sub.fetch_next(limit, MB, BOUND)))
    waiter.start()
    happens()
    waiter.join(BOUND / 2)
    assert not waiter.is_alive()
    return found[0]


def receive(sub: Subscription, mine: list[Delivery], over: threading.Event) -> None:
    """Settle what comes until it is over."""
    found: Collection[Delivery] | None = None
    while not over.is_set():
        found = sub.fetch(7, MB) if found is None else sub.fetch_next(7, MB, 5.0)
        mine += found or ()
        if found:
            sub.settle([(d.lease, ACK) for d in found])
            found = () if sub.emptied else None
