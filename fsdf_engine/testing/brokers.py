"""One conformance suite for every broker: subclass it, give a `broker` fixture, change nothing.

    class TestMine(BrokerConformance):
        @pytest.fixture
        def broker(self):
            return MyBroker("mine://127.0.0.1")

Where other programs can write into a queue (SHARED), `spoil` is given, too, and `cut` where leases
do not end by time (no TIMED). A test skips only for a capability that the broker does not claim;
the reason names it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ..contracts import Broker, Capability, Delivery, Outgoing, Part, Subscription
from ..errors import LARGEST, PublishError
from ..outcomes import ACK, DeadLetter, Release, Verdict
from .deliveries import (
    BOUND,
    MB,
    QUEUE,
    Open,
    bodies,
    collect,
    counts,
    drain,
    fetch_some,
    has,
    needs,
    outgoing,
    sized,
    take,
)  # fmt: skip
from .foreign import ForeignEntries
from .letters import LettersConformance
from .names import NamesConformance
from .priorities import PrioritiesConformance
from .waiting import WaitingConformance

__all__ = ["BOUND", "MB", "BrokerConformance", "drain", "fetch_some", "needs", "outgoing"]


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
        found = collect(broker, open(), 10_000, 1000)
        assert bodies(found) == [outgoing(n).body for n in range(10_000)]
        assert len({d.id for d in found}) == 10_000
        assert len({d.lease for d in found}) == 10_000

    def test_fetch_respects_limit_and_never_blocks(self, broker: Broker, open: Open) -> None:
        sub = open()
        assert len(sub.fetch(2, MB)) == 0
        broker.publish([outgoing(n) for n in range(5)])
        if has(broker, Capability.PULL):
            assert len(sub.fetch(2, MB)) == 2
        else:
            assert len(fetch_some(sub, 2)) <= 2

    def test_fetch_keeps_to_its_bytes(self, broker: Broker, open: Open) -> None:
        broker.publish([Outgoing(QUEUE, str(n), b"x" * 200_000) for n in range(20)])
        sub = open()
        found = sub.fetch(100, MB) if has(broker, Capability.PULL) else fetch_some(sub, 100)
        assert 1 <= len(found) <= 7

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
        assert broker.size(QUEUE) == sized(broker, 2, 0, 0, 0)
        collect(broker, sub, 2)

    def test_wait_sees_what_came_before_it(self, broker: Broker, open: Open) -> None:
        sub = open()
        sub.fetch(1, MB)
        broker.publish([outgoing(1)])
        began = time.monotonic()
        sub.wait(BOUND)
        assert time.monotonic() - began < BOUND / 2
        take(broker, sub, 1)

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
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)
        assert not sub.fetch(1, MB)

    def test_settle_takes_mixed_verdicts_in_one_call(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(n) for n in range(4)])
        found = collect(broker, sub, 4)
        verdicts: list[Verdict] = [ACK, Release(), Release(0.0, {"attempt": 1}), DeadLetter("bad")]
        if has(broker, Capability.DELAY):
            verdicts[2] = Release(60.0, {"attempt": 1})
        pairs = [(d.lease, v) for d, v in zip(found, verdicts, strict=True)]
        assert not sub.settle(pairs)
        delayed = int(has(broker, Capability.DELAY))
        assert broker.size(QUEUE) == sized(broker, 2 - delayed, delayed, 0, 1)

    def test_release_is_first_in_line_and_not_counted(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(1), outgoing(2)])
        [d] = take(broker, sub, 1)
        sub.rest()  # what is in a buffer is handed out before what has gone back
        sub.settle([(d.lease, Release())])
        [e] = take(broker, sub, 1)
        assert counts(broker, e, 0)
        assert e.state is None
        if has(broker, Capability.ORDERED):
            assert e.body == d.body
        if has(broker, Capability.LEASE) and e.body == d.body:
            assert e.id == d.id

    def test_what_several_fetches_took_comes_back_in_its_order(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.ORDERED)
        sub = open()
        broker.publish([outgoing(n) for n in range(300)])
        taken = collect(broker, sub, 300, 100)
        assert not sub.settle([(d.lease, Release()) for d in reversed(taken)])
        assert bodies(collect(broker, sub, 300, 100)) == bodies(taken)

    def test_release_with_state_and_delay_returns_both(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DELAY)
        sub = open()
        broker.publish([outgoing(1)])
        [d] = fetch_some(sub)
        sub.settle([(d.lease, Release(1.0, {"attempt": 2, "reason": "пауза"}))])
        assert not sub.fetch(1, MB)
        assert broker.size(QUEUE) == sized(broker, 0, 1, 0, 0)
        [e] = fetch_some(sub)
        assert (e.body, e.state) == (b'{"n":1}', {"attempt": 2, "reason": "пауза"})
        assert counts(broker, e, 0)

    def test_release_with_a_delay_comes_again_when_it_is_due(
        self, broker: Broker, open: Open
    ) -> None:
        sub = open()
        broker.publish([outgoing(n) for n in range(3)])
        found = collect(broker, sub, 3)
        delays = dict(zip(bodies(found), (0.4, 0.2, 0.0)))
        began, again = time.monotonic(), list[Delivery]()
        state = {"attempt": 1}
        assert not sub.settle([(d.lease, Release(delays[d.body], state)) for d in found])
        while len(again) < 3:
            again += (some := fetch_some(sub))
            assert time.monotonic() - began >= max(delays[d.body] for d in some) - 0.01
        assert sorted(bodies(again)) == sorted(delays)
        assert all(counts(broker, d, 0) and d.state == {"attempt": 1} for d in again)
        assert not sub.settle([(d.lease, ACK) for d in again])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_release_with_state_returns_it(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([Outgoing(QUEUE, "1", b"{}", {"form": "ж"})])
        [d] = fetch_some(sub)
        for state in ({"attempt": 2}, {"attempt": 3, "reason": "пауза"}, None):
            assert not sub.settle([(d.lease, Release(0.0, state))])
            [e] = fetch_some(sub)
            assert (e.body, e.headers, e.state) == (d.body, d.headers, state)
            assert counts(broker, e, 0)
            if has(broker, Capability.LEASE):
                assert e.id == d.id
            d = e
        assert not sub.settle([(d.lease, ACK)])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_what_cannot_be_delayed_is_rejected(self, broker: Broker, open: Open) -> None:
        if has(broker, Capability.DELAY):
            return
        batch = [outgoing(1), outgoing(2, delay=60.0), outgoing(3, not_before=time.time() + 60.0)]
        with pytest.raises(PublishError) as failed:
            broker.publish([*batch, outgoing(4, not_before=1.0)])
        assert list(failed.value.rejected) == batch[1:]
        assert not failed.value.unknown
        assert sorted(bodies(collect(broker, open(), 2))) == [outgoing(n).body for n in (1, 4)]

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
        due, came = time.time() + 0.2, dict[bytes, float]()
        broker.publish([outgoing(1, not_before=due), outgoing(2, not_before=5.0)])
        while len(came) < 2:
            some = bodies(fetch_some(sub))
            came.update(dict.fromkeys(some, time.time()))
        assert came[b'{"n":2}'] <= came[b'{"n":1}']
        assert came[b'{"n":1}'] >= due - 0.01

    def test_the_longest_delays_are_kept(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DELAY)
        far = [outgoing(1, delay=LARGEST), outgoing(2, not_before=LARGEST)]
        broker.publish([*far, outgoing(3)])
        sub = open()
        assert bodies(collect(broker, sub, 1)) == [outgoing(3).body]
        assert broker.size(QUEUE) == sized(broker, 0, len(far), 1, 0)

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
        found = collect(broker, sub, 2)
        delay = 60.0 if has(broker, Capability.DELAY) else 0.0
        sub.settle([(d.lease, Release(delay, {"attempt": 1})) for d in found])
        assert sum(broker.size(QUEUE)[:2]) == 2

    def test_release_by_one_worker_wakes_another(self, broker: Broker, open: Open) -> None:
        one, other = open(), open()
        broker.publish([outgoing(1)])
        [d] = fetch_some(one)
        assert not other.fetch(1, MB)
        waiter = threading.Thread(target=other.wait, args=(BOUND,))
        waiter.start()
        one.rest()
        one.settle([(d.lease, Release(0.0, {"attempt": 1}))])
        waiter.join(BOUND / 2)
        assert not waiter.is_alive()
        take(broker, other, 1)

    def test_size_and_purge_are_exact_for_every_part(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.SIZE)
        sub, later = open(), 3 if has(broker, Capability.DELAY) else 0
        broker.publish([outgoing(n) for n in range(10)])
        broker.publish([outgoing(n, delay=60.0) for n in range(later)])
        found = take(broker, sub, 4)
        assert broker.size(QUEUE) == sized(broker, 6, later, 4, 0)
        sub.rest()
        assert broker.size(QUEUE) == sized(broker, 6, later, 4, 0)
        delayed = Release(60.0) if later else DeadLetter("x")
        sub.settle([(found[0].lease, DeadLetter("x")), (found[1].lease, delayed)])
        dead = 1 if later else 2
        assert broker.size(QUEUE) == sized(broker, 6, later and 4, 2, dead)
        assert broker.purge(QUEUE) == 6 + (later and 4)
        assert broker.size(QUEUE) == sized(broker, 0, 0, 2, dead)
        if has(broker, Capability.LEASE) and has(broker, Capability.SIZE_LEASED):
            assert broker.purge(QUEUE, Part.LEASED) == 2
            lost = sub.settle([(found[2].lease, ACK), (found[3].lease, Release())])
            assert set(lost) == {found[2].lease, found[3].lease}
        else:
            assert broker.purge(QUEUE, Part.LEASED) == 0
            assert not sub.settle([(d.lease, ACK) for d in found[2:]])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, dead)
        assert broker.purge(QUEUE, Part.DEAD) == dead

    def test_publishing_from_many_threads_loses_nothing(self, broker: Broker, open: Open) -> None:
        def publish(base: int) -> None:
            for n in range(25):
                broker.publish([outgoing(base + n)])

        threads = [threading.Thread(target=publish, args=(base * 25,)) for base in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(bodies(collect(broker, open(), 500))) == {outgoing(n).body for n in range(500)}

    def test_two_subscriptions_never_share_a_message(self, broker: Broker, open: Open) -> None:
        broker.publish([outgoing(n) for n in range(2000)])
        got: list[list[bytes]] = [[], []]
        pulls, end = has(broker, Capability.PULL), time.monotonic() + BOUND

        def take(mine: list[bytes], sub: Subscription) -> None:
            while (found := sub.fetch(7, MB)) or not (pulls or over()):
                mine += bodies(found)
                sub.settle([(d.lease, ACK) for d in found])
                if not found:
                    sub.wait(0.1)

        def over() -> bool:
            return sum(map(len, got)) >= 2000 or time.monotonic() > end

        threads = [threading.Thread(target=take, args=(mine, open())) for mine in got]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got[0] + got[1]) == sorted(outgoing(n).body for n in range(2000))
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_close_is_idempotent_and_the_broker_opens_again(
        self, broker: Broker, open: Open
    ) -> None:
        broker.publish([outgoing(1)])
        broker.close()
        broker.close()
        assert broker.size(QUEUE).waiting in (0, 1)  # memory of a closed process may be gone
