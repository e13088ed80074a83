"""One conformance suite for every broker: subclass it, give a `broker` fixture, change nothing.

    class TestMine(BrokerConformance):
        @pytest.fixture
        def broker(self):
            return MyBroker("mine://127.0.0.1")

Where other programs can write into a queue (SHARED), `spoil` is given, too. A test skips only for a
capability that the broker does not claim; the reason names it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ..contracts import Broker, Capability, Delivery, Outgoing, Part, Subscription
from ..outcomes import ACK, DeadLetter, Release, Verdict
from .deliveries import (
    BOUND,
    MB,
    QUEUE,
    Open,
    bodies,
    drain,
    fetch_some,
    held,
    needs,
    outgoing,
)  # fmt: skip
from .foreign import ForeignEntries
from .letters import LettersConformance
from .names import NamesConformance
from .priorities import PrioritiesConformance
from .waiting import WaitingConformance

__all__ = ["BOUND", "MB", "BrokerConformance", "fetch_some", "needs", "outgoing"]


class BrokerConformance(
    NamesConformance, LettersConformance, PrioritiesConformance, WaitingConformance, ForeignEntries
):
    """Every test must pass unchanged. The queue is empty when a test starts."""

    @pytest.fixture
    def open(self, broker: Broker) -> Iterator[Open]:
        opened: list[Subscription] = []

        def subscribe(lease: float = 30.0) -> Subscription:
            opened.append(broker.subscribe(QUEUE, lease=lease))
            return opened[-1]

        yield subscribe
        for sub in opened:
            sub.close()
        broker.purge(QUEUE, Part.WAITING | Part.DELAYED | Part.LEASED | Part.DEAD)
        broker.close()

    def test_published_messages_are_delivered_in_order(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.ORDERED)
        for start in range(0, 10_000, 1000):
            broker.publish([outgoing(n) for n in range(start, start + 1000)])
        found = drain(open(), 1000)
        assert bodies(found) == [outgoing(n).body for n in range(10_000)]
        assert len({d.id for d in found}) == 10_000
        assert len({d.lease for d in found}) == 10_000

    def test_fetch_respects_limit_and_never_blocks(self, broker: Broker, open: Open) -> None:
        sub = open()
        assert len(sub.fetch(2, MB)) == 0
        broker.publish([outgoing(n) for n in range(5)])
        assert len(sub.fetch(2, MB)) == 2

    def test_fetch_keeps_to_its_bytes(self, broker: Broker, open: Open) -> None:
        broker.publish([Outgoing(QUEUE, str(n), b"x" * 200_000) for n in range(20)])
        assert 1 <= len(open().fetch(100, MB)) <= 7

    def test_large_and_non_ascii_bodies_are_unchanged(self, broker: Broker, open: Open) -> None:
        body = '{"s":"ж漢字🎉\\u0000\\r\\n'.encode() + b"x" * MB + b'"}'
        broker.publish([Outgoing(QUEUE, "1", body)])
        assert bodies(fetch_some(open())) == [body]

    def test_wait_returns_when_a_message_arrives_and_leases_nothing(
        self, broker: Broker, open: Open
    ) -> None:
        sub = open()
        sub.fetch(1, MB)
        waiter = threading.Thread(target=sub.wait, args=(BOUND,))
        waiter.start()
        broker.publish([outgoing(1), outgoing(2)])
        waiter.join(BOUND / 2)
        assert not waiter.is_alive()
        assert broker.size(QUEUE) == (2, 0, 0, 0)
        assert len(sub.fetch(5, MB)) == 2

    def test_wait_sees_what_came_before_it(self, broker: Broker, open: Open) -> None:
        sub = open()
        sub.fetch(1, MB)
        broker.publish([outgoing(1)])
        began = time.monotonic()
        sub.wait(BOUND)
        assert time.monotonic() - began < BOUND / 2
        assert len(sub.fetch(1, MB)) == 1

    def test_wake_ends_a_wait_also_if_it_comes_first(self, broker: Broker, open: Open) -> None:
        sub = open()
        sub.fetch(1, MB)
        for order in ("wake first", "wait first"):
            waiter = threading.Thread(target=sub.wait, args=(BOUND,))
            if order == "wake first":
                sub.wake()
            waiter.start()
            if order == "wait first":
                sub.wake()
            waiter.join(BOUND / 2)
            assert not waiter.is_alive(), order

    def test_wait_ends_at_its_timeout(self, broker: Broker, open: Open) -> None:
        sub = open()
        sub.fetch(1, MB)
        began = time.monotonic()
        sub.wait(0.05)
        assert 0.04 < time.monotonic() - began < BOUND / 2

    def test_acked_message_never_returns(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(1)])
        [d] = fetch_some(sub)
        assert not sub.settle([(d.lease, ACK)])
        assert broker.size(QUEUE) == (0, 0, 0, 0)
        assert not sub.fetch(1, MB)

    def test_settle_takes_mixed_verdicts_in_one_call(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(n) for n in range(4)])
        found = drain(sub)
        verdicts: list[Verdict] = [ACK, Release(), Release(60.0, {"attempt": 1}), DeadLetter("bad")]
        pairs = [(d.lease, v) for d, v in zip(found, verdicts, strict=True)]
        assert not sub.settle(pairs)
        assert broker.size(QUEUE) == (1, 1, 0, 1)

    def test_expired_lease_returns_message_and_fences_its_old_owner(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.LEASE)
        old, new = open(lease=0.2), open()
        broker.publish([outgoing(n) for n in range(3)])
        first = drain(old)
        assert len(first) == 3
        by_body = {d.body: d for d in first}
        assert not old.settle([(by_body[b'{"n":0}'].lease, ACK)])
        again: list[Delivery] = []
        while len(again) < 2:
            again += fetch_some(new)
        assert sorted((d.body, d.deliveries) for d in again) == [(b'{"n":1}', 1), (b'{"n":2}', 1)]
        assert {d.id for d in again} == {by_body[d.body].id for d in again}
        stale = [by_body[b'{"n":1}'].lease, by_body[b'{"n":2}'].lease]
        assert set(old.settle([(stale[0], ACK), (stale[1], Release())])) == set(stale)
        assert not old.extend(stale)
        assert broker.size(QUEUE) == (0, 0, 2, 0)
        assert not new.settle([(d.lease, ACK) for d in again])
        assert broker.size(QUEUE) == (0, 0, 0, 0)

    def test_lost_leases_are_counted_over_redeliveries(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.LEASE)
        sub = open(lease=0.05)
        broker.publish([outgoing(1)])
        for lost in range(3):
            [d] = fetch_some(sub)
            assert d.deliveries == lost
        last = open()
        [d] = fetch_some(last)
        last.settle([(d.lease, Release(0.0, {"attempt": 7}))])
        [d] = fetch_some(last)
        assert (d.deliveries, d.state) == (3, {"attempt": 7})

    def test_extended_lease_keeps_message(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.LEASE)
        short, other = open(lease=1.0), open()
        broker.publish([outgoing(n) for n in range(2)])
        leases = [d.lease for d in drain(short)]
        for _ in range(4):
            assert set(short.extend(leases)) == set(leases)
            other.wait(0.3)
            assert not other.fetch(1, MB)
        assert not short.settle([(lease, ACK) for lease in leases])

    def test_release_is_first_in_line_and_not_counted(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(1), outgoing(2)])
        [d] = sub.fetch(1, MB)
        sub.settle([(d.lease, Release())])
        [e] = sub.fetch(1, MB)
        assert (e.deliveries, e.state) == (0, None)
        if Capability.ORDERED in broker.capabilities:
            assert e.body == d.body
        if Capability.LEASE in broker.capabilities and e.body == d.body:
            assert e.id == d.id

    def test_what_several_fetches_took_comes_back_in_its_order(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.ORDERED)
        sub = open()
        broker.publish([outgoing(n) for n in range(300)])
        taken = drain(sub, 100)
        assert not sub.settle([(d.lease, Release()) for d in reversed(taken)])
        assert bodies(drain(sub, 100)) == bodies(taken)

    def test_release_with_state_and_delay_returns_both(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(1)])
        [d] = fetch_some(sub)
        sub.settle([(d.lease, Release(0.3, {"attempt": 2, "reason": "пауза"}))])
        assert not sub.fetch(1, MB)
        assert broker.size(QUEUE) == (0, 1, 0, 0)
        [e] = fetch_some(sub)
        assert (e.body, e.deliveries, e.state) == (
            b'{"n":1}',
            0,
            {"attempt": 2, "reason": "пауза"},
        )

    def test_delayed_message_comes_when_due(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DELAY)
        sub = open()
        found: list[Delivery] = []
        at: list[float] = []
        sub.fetch(1, MB)

        def receive() -> None:
            found.extend(fetch_some(sub))
            at.append(time.monotonic())

        waiter = threading.Thread(target=receive)
        waiter.start()
        began = time.monotonic()
        broker.publish([outgoing(1, delay=0.15)])
        waiter.join(BOUND / 2)
        assert bodies(found) == [b'{"n":1}']
        assert at[0] - began >= 0.14

    def test_not_before_delays_to_an_instant(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DELAY)
        sub = open()
        broker.publish([outgoing(1, not_before=time.time() + 0.2), outgoing(2, not_before=5.0)])
        assert bodies(fetch_some(sub)) == [b'{"n":2}']
        assert bodies(fetch_some(sub)) == [b'{"n":1}']

    def test_many_delayed_messages_all_come(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DELAY)
        broker.publish([outgoing(n, delay=0.05) for n in range(500)])
        sub = open()
        got: set[bytes] = set()
        while len(got) < 500:
            got |= set(bodies(fetch_some(sub, 200)))
        assert got == {outgoing(n).body for n in range(500)}

    def test_two_equal_messages_are_two(self, broker: Broker, open: Open) -> None:
        sub = open()
        body = b'{"a":3,"b":6}'
        broker.publish([Outgoing(QUEUE, "x", body), Outgoing(QUEUE, "y", body)])
        found = drain(sub)
        assert len(found) == 2
        sub.settle([(d.lease, Release(60.0, {"attempt": 1})) for d in found])
        assert broker.size(QUEUE).delayed == 2

    def test_release_by_one_worker_wakes_another(self, broker: Broker, open: Open) -> None:
        one, other = open(), open()
        broker.publish([outgoing(1)])
        [d] = fetch_some(one)
        assert not other.fetch(1, MB)
        waiter = threading.Thread(target=other.wait, args=(BOUND,))
        waiter.start()
        one.settle([(d.lease, Release(0.0, {"attempt": 1}))])
        waiter.join(BOUND / 2)
        assert not waiter.is_alive()
        assert len(other.fetch(1, MB)) == 1

    def test_size_and_purge_are_exact_for_every_part(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.SIZE)
        sub = open()
        broker.publish([outgoing(n) for n in range(10)])
        broker.publish([outgoing(n, delay=60.0) for n in range(3)])
        found = list(sub.fetch(4, MB))
        while len(found) < 4:
            found += sub.fetch(4 - len(found), MB)
        assert broker.size(QUEUE) == (6, 3, held(broker, 4), 0)
        sub.settle([(found[0].lease, DeadLetter("x")), (found[1].lease, Release(60.0))])
        assert broker.size(QUEUE) == (6, 4, held(broker, 2), 1)
        assert broker.purge(QUEUE) == 10
        assert broker.size(QUEUE) == (0, 0, held(broker, 2), 1)
        if Capability.LEASE in broker.capabilities:
            assert broker.purge(QUEUE, Part.LEASED) == 2
            lost = sub.settle([(found[2].lease, ACK), (found[3].lease, Release())])
            assert set(lost) == {found[2].lease, found[3].lease}
            assert broker.size(QUEUE) == (0, 0, 0, 1)
        assert broker.purge(QUEUE, Part.DEAD) == 1

    def test_publishing_from_many_threads_loses_nothing(self, broker: Broker, open: Open) -> None:
        def publish(base: int) -> None:
            for n in range(25):
                broker.publish([outgoing(base + n)])

        threads = [threading.Thread(target=publish, args=(base * 25,)) for base in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(bodies(drain(open()))) == {outgoing(n).body for n in range(500)}

    def test_two_subscriptions_never_share_a_message(self, broker: Broker, open: Open) -> None:
        broker.publish([outgoing(n) for n in range(2000)])
        got: list[list[bytes]] = [[], []]

        def take(mine: list[bytes], sub: Subscription) -> None:
            while found := sub.fetch(7, MB):
                mine += bodies(found)
                sub.settle([(d.lease, ACK) for d in found])

        threads = [threading.Thread(target=take, args=(mine, open())) for mine in got]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got[0] + got[1]) == sorted(outgoing(n).body for n in range(2000))
        assert broker.size(QUEUE) == (0, 0, 0, 0)

    def test_close_is_idempotent_and_the_broker_opens_again(
        self, broker: Broker, open: Open
    ) -> None:
        broker.publish([outgoing(1)])
        broker.close()
        broker.close()
        assert broker.size(QUEUE).waiting in (0, 1)  # memory of a closed process may be gone
