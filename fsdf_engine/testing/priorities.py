"""The part of the suite of brokers that is about priorities."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..contracts import Broker, Capability, Delivery, Letter, Part, Subscription
from ..outcomes import ACK, DeadLetter, Release, Verdict
from .deliveries import (
    BOUND,
    MB,
    QUEUE,
    Open,
    collect,
    counts,
    fetch_some,
    has,
    held,
    needs,
    outgoing,
    sized,
    take,
)  # fmt: skip
from .leases import LeasesConformance, ending

__all__ = ["PrioritiesConformance"]


class PrioritiesConformance(LeasesConformance):
    """Derived from by `BrokerConformance`."""

    def test_priority_nine_comes_first(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.PRIORITY)
        broker.publish([outgoing(n, priority=n % 10) for n in range(20)])
        got = [int(d.body[5:-1]) for d in collect(broker, open(), 20, 5)]
        assert [n % 10 for n in got] == sorted((n % 10 for n in range(20)), reverse=True)
        if has(broker, Capability.ORDERED):
            assert got[:2] == [9, 19]

    def test_message_of_any_priority_wakes_a_waiter(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.PRIORITY)
        sub = open()
        sub.fetch(1, MB)
        waiter = threading.Thread(target=sub.wait, args=(BOUND,))
        waiter.start()
        broker.publish([outgoing(1, priority=7)])
        waiter.join(BOUND / 2)
        assert not waiter.is_alive()
        [d] = take(broker, sub, 1)
        delay = 0.05 if has(broker, Capability.DELAY) else 0.0
        sub.settle([(d.lease, Release(delay, {"attempt": 1}))])
        [d] = fetch_some(sub)
        assert d.body == b'{"n":1}'

    def test_priorities_below_0_come_last_rounded_to_three_lines(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.PRIORITY)
        mixed = [0, -9, 4, -1, -3, 9, -6, -2, -8, -5, 0, -4, -7, 1]
        broker.publish([outgoing(n, priority=priority) for n, priority in enumerate(mixed)])
        found = collect(broker, open(), len(mixed), 3)
        lines = [0 if mixed[number(d)] in (-1, -2) else d.priority for d in found]
        assert lines == [9, 4, 1, 0, 0, 0, 0, -3, -3, -3, -6, -6, -6, -9]
        assert [d.priority for d in found] == lines
        if has(broker, Capability.ORDERED):
            places = [[mixed[number(d)] for d in found if d.priority == n] for n in (0, -3, -6, -9)]
            assert places == [[0, -1, -2, 0], [-3, -5, -4], [-6, -8, -7], [-9]]

    def test_priority_beyond_the_lines_counts_as_the_outermost(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.PRIORITY)
        given = {-40: -9, -10: -9, 10: 9, 99: 9}
        sub = open()
        for delay in (0.0, 0.01) if has(broker, Capability.DELAY) else (0.0,):
            broker.publish([outgoing(n, priority=n, delay=delay) for n in given])
            assert {number(d): d.priority for d in some(sub, 4)} == given

    def test_what_is_below_0_waits_while_anything_else_does(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.PRIORITY)
        sub = open()
        broker.publish([outgoing(n, priority=-3) for n in (1, 2)])
        one, two = collect(broker, sub, 2)
        sub.rest()
        sub.settle([(two.lease, Release()), (one.lease, Release(0.0, {"attempt": 1}))])
        broker.publish([outgoing(3), outgoing(4, priority=5), outgoing(5, priority=-3)])
        assert [number(d) for d in take(broker, sub, 2)] == [4, 3]
        back = [number(d) for d in collect(broker, sub, 3, 1)]
        ordered = has(broker, Capability.ORDERED | Capability.ATOMIC)
        assert (back if ordered else sorted(back)) == [1, 2, 5]

    def test_delivery_tells_its_priority_whatever_became_of_it(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.PRIORITY)
        sub = open()
        each = {b'{"n":%d}' % n: n for n in (0, 3, 9, -3, -9)}
        broker.publish([outgoing(n, priority=n) for n in each.values()])
        verdicts: list[Verdict] = [Release(), Release(0.0, {"x": 1})]
        if has(broker, Capability.DELAY):
            verdicts.append(Release(0.01, {"attempt": 1}))
        if has(broker, Capability.DEAD_LETTER):
            verdicts.append(DeadLetter("bad"))
        for verdict in verdicts:
            found = some(sub, len(each))
            assert {d.body: d.priority for d in found} == each
            sub.settle([(d.lease, verdict) for d in found])
        if has(broker, Capability.DEAD_LETTER):
            assert {x.body for x in broker.dead_letters(QUEUE)} == set(each)
            sub.rest()  # what is in a buffer is passed by nothing
            assert broker.replay(QUEUE) == len(each)
            for n in (9, -6):
                broker.bury([Letter(QUEUE, f"{n}", b"%d" % n, "bad", priority=n)])
            assert broker.replay(QUEUE) == 2
            found = collect(broker, sub, len(each) + 2)
            assert {d.body: d.priority for d in found} == {**each, b"9": 9, b"-6": -6}
            order = [d.priority for d in found]
            assert order == sorted(order, reverse=True)

    def test_size_and_purge_count_what_is_below_0(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.PRIORITY)
        needs(broker, Capability.DELAY)
        sub = open()
        broker.publish([outgoing(n, priority=-n) for n in range(1, 10)])
        broker.publish([outgoing(n, priority=-n, delay=60.0) for n in range(1, 10)])
        broker.publish([outgoing(n, priority=-n, not_before=1.0) for n in (3, 9)])
        taken = some(sub, 6)
        assert broker.size(QUEUE) == sized(broker, 5, 9, 6, 0)
        sub.rest()
        verdicts: list[Verdict] = [ACK, DeadLetter("bad"), Release(60.0), Release()]
        assert not sub.settle([(d.lease, v) for d, v in zip(taken[2:], verdicts, strict=True)])
        assert broker.size(QUEUE) == sized(broker, 6, 10, 2, 1)
        assert broker.purge(QUEUE, Part.WAITING) == 6
        assert broker.purge(QUEUE, Part.DELAYED) == 10
        assert broker.purge(QUEUE, Part.DEAD) == 1
        lost = held(broker, 2) if has(broker, Capability.SIZE_LEASED) else 0
        assert broker.purge(QUEUE, Part.LEASED) == lost
        assert broker.size(QUEUE) == sized(broker, 0, 0, 2 - lost, 0)
        if has(broker, Capability.LEASE):
            assert len(sub.settle([(d.lease, ACK) for d in taken[:2]])) == lost
        assert not sub.fetch(1, MB)

    def test_leases_of_what_is_below_0_end_and_are_renewed(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.PRIORITY)
        needs(broker, Capability.LEASE)
        short, other = ending(broker, open, 1.0), open()
        broker.publish([outgoing(n, priority=-n) for n in (3, 6, 9)])
        leases = [d.lease for d in some(short, 3)]
        for _ in range(3):
            assert set(short.extend(leases)) == set(leases)
            other.wait(0.2)
            assert not other.fetch(1, MB)
        assert not short.settle([(leases[0], ACK)])
        self.lose(broker, short)
        again = some(other, 2)
        assert [(number(d), d.priority) for d in again] == [(6, -6), (9, -9)]
        assert all(counts(broker, d, 1) for d in again)
        assert set(short.settle([(lease, ACK) for lease in leases[1:]])) == set(leases[1:])
        assert not short.extend(leases[1:])
        assert not other.settle([(d.lease, ACK) for d in again])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_what_is_below_0_wakes_a_waiter_as_anything_else(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.PRIORITY)
        one, other = open(), open()

        def wakes(change: Callable[[], object]) -> Delivery:
            assert not other.fetch(1, MB)
            waiter = threading.Thread(target=other.wait, args=(BOUND,))
            waiter.start()
            change()
            waiter.join(BOUND / 2)
            assert not waiter.is_alive()
            return fetch_some(other)[0]

        wakes(lambda: broker.publish([outgoing(1, priority=-9)]))
        if has(broker, Capability.DELAY):
            wakes(lambda: broker.publish([outgoing(1, priority=-3, delay=0.2)]))
        if has(broker, Capability.DEAD_LETTER):
            broker.bury([Letter(QUEUE, "b", b"b", "bad", priority=-9)])
            assert wakes(lambda: broker.replay(QUEUE)).body == b"b"
        other.rest()
        broker.publish([outgoing(1, priority=-6)])
        [d] = some(one, 1)
        one.rest()
        found = wakes(lambda: one.settle([(d.lease, Release(0.0, {"attempt": 1}))]))
        assert (found.priority, found.state) == (-6, {"attempt": 1})


def number(delivery: Delivery) -> int:
    """Return what the suite's message has for `n`."""
    return int(delivery.body[5:-1])


def some(sub: Subscription, count: int) -> list[Delivery]:
    """Fetch so many, waiting for what is due later."""
    found: list[Delivery] = []
    while len(found) < count:
        found += fetch_some(sub, count - len(found))
    return found
