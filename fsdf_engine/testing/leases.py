"""The part of the suite of brokers that is about leases: how they end, and who may still settle."""

from __future__ import annotations

from collections.abc import Sequence

from ..contracts import Broker, Capability, Delivery, LeaseId, Outgoing, Subscription
from ..outcomes import ACK, DeadLetter, Release, Verdict
from .deliveries import (
    MB,
    QUEUE,
    Open,
    bodies,
    collect,
    counts,
    fetch_some,
    has,
    needs,
    outgoing,
    sized,
    take,
)  # fmt: skip

__all__ = ["LeasesConformance", "ending"]


def ending(broker: Broker, open: Open, lease: float = 0.2) -> Subscription:
    """Return a subscription whose leases end soon, or when it is cut."""
    return open(lease=lease if has(broker, Capability.TIMED) else 30.0)


class LeasesConformance:
    """Derived from by `BrokerConformance`."""

    def cut(self, broker: Broker, sub: Subscription) -> None:
        """End the connection that a subscription receives on, as a broken network does.

        It may open another one; its leases are lost. Asked only where TIMED is lacking.
        """
        raise NotImplementedError("give the suite a way to cut what a subscription receives on")

    def lose(self, broker: Broker, sub: Subscription) -> None:
        """Let all leases of a subscription of `ending` end: by themselves, or by a cut."""
        sub.rest()  # what comes back is for others
        if not has(broker, Capability.TIMED):
            self.cut(broker, sub)

    def test_expired_lease_returns_message_and_fences_its_old_owner(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.LEASE)
        old, new = ending(broker, open, 0.5), open()
        broker.publish([outgoing(n) for n in range(3)])
        by_body = {d.body: d for d in take(broker, old, 3)}
        assert not old.settle([(by_body[b'{"n":0}'].lease, ACK)])
        self.lose(broker, old)
        again: list[Delivery] = []
        while len(again) < 2:
            again += fetch_some(new)
        assert sorted(bodies(again)) == [b'{"n":1}', b'{"n":2}']
        assert all(counts(broker, d, 1) for d in again)
        assert {d.id for d in again} == {by_body[d.body].id for d in again}
        stale = [by_body[b'{"n":1}'].lease, by_body[b'{"n":2}'].lease]
        assert set(old.settle([(stale[0], ACK), (stale[1], Release())])) == set(stale)
        assert not old.extend(stale)
        assert broker.size(QUEUE) == sized(broker, 0, 0, 2, 0)
        assert not new.settle([(d.lease, ACK) for d in again])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_a_late_owner_leaves_neither_copies_nor_letters(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.LEASE)
        old, new = ending(broker, open), open()
        broker.publish([outgoing(n) for n in range(3)])
        stale = [d.lease for d in take(broker, old, 3)]
        self.lose(broker, old)
        again: list[Delivery] = []
        while len(again) < 3:
            again += fetch_some(new)
        state = {"attempt": 9}
        late: list[Verdict] = [Release(0.0, state), Release(60.0, state), DeadLetter("late")]
        assert set(old.settle(list(zip(stale, late, strict=True)))) == set(stale)
        assert broker.size(QUEUE) == sized(broker, 0, 0, 3, 0)
        assert not new.settle([(d.lease, ACK) for d in again])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_lost_leases_are_counted_over_redeliveries(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.LEASE)
        sub = ending(broker, open, 0.05)
        broker.publish([outgoing(1)])
        for lost in range(3):
            [d] = fetch_some(sub)
            assert counts(broker, d, lost)
            self.lose(broker, sub)
        last = open()
        [d] = fetch_some(last)
        last.settle([(d.lease, Release(0.0, {"attempt": 7}))])
        [d] = fetch_some(last)
        assert counts(broker, d, 3)
        assert d.state == {"attempt": 7}

    def test_what_is_given_back_is_no_lost_lease(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.COUNTED)
        sub = open()
        broker.publish([outgoing(1)])
        for n in range(20):
            [d] = fetch_some(sub)
            assert d.deliveries == 0
            sub.settle([(d.lease, Release(0.0, {"attempt": n} if n % 2 else None))])

    def test_extended_lease_keeps_message(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.LEASE)
        short, other = ending(broker, open, 1.0), open()
        broker.publish([outgoing(n) for n in range(2)])
        leases = [d.lease for d in take(broker, short, 2)]
        for _ in range(4):
            assert set(short.extend(leases)) == set(leases)
            other.wait(0.3)
            assert not other.fetch(1, MB)
        assert not short.settle([(lease, ACK) for lease in leases])

    def test_what_is_not_handed_out_goes_back_when_a_subscription_rests(
        self, broker: Broker, open: Open
    ) -> None:
        one, other = open(), open()
        broker.publish([outgoing(n) for n in range(20)])
        [mine] = take(broker, one, 1)
        one.rest()
        one.rest()
        assert broker.size(QUEUE) == sized(broker, 19, 0, 1, 0)
        found = collect(broker, other, 19)
        assert sorted(bodies([mine, *found])) == sorted(outgoing(n).body for n in range(20))
        if has(broker, Capability.ORDERED):
            assert bodies([mine, *found]) == [outgoing(n).body for n in range(20)]
        assert all(counts(broker, d, 0) for d in found)
        if has(broker, Capability.LEASE):
            assert set(one.extend([mine.lease])) == {mine.lease}
        assert not one.settle([(mine.lease, ACK)])
        other.rest()
        broker.publish([outgoing(20)])
        one.wait(5.0)  # which, as a fetch does, ends the rest
        assert bodies(fetch_some(one)) == [outgoing(20).body]

    def test_a_subscription_that_closes_leaves_what_it_has_not_handed_out(
        self, broker: Broker, open: Open
    ) -> None:
        one, other = open(), open()
        broker.publish([outgoing(n) for n in range(20)])
        mine = [d.body for d in take(broker, one, 5)]
        one.close()
        if not has(broker, Capability.LEASE) or has(broker, Capability.TIMED):
            found = collect(broker, other, 15)
            assert sorted([*mine, *bodies(found)]) == sorted(outgoing(n).body for n in range(20))
        else:
            found = collect(broker, other, 20)
            assert sorted(bodies(found)) == sorted(outgoing(n).body for n in range(20))
            assert all(counts(broker, d, 1) for d in found if d.body in mine)

    def test_what_a_cut_subscription_had_comes_again_and_to_itself(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.LEASE)
        sub = ending(broker, open, 1.0)
        broker.publish([Outgoing(QUEUE, f"{n}", b"%d" % n) for n in range(10)])
        first = take(broker, sub, 4)
        if not has(broker, Capability.TIMED):
            self.cut(broker, sub)
        again: dict[bytes, LeaseId] = {}
        while len(again) < 10:
            some: Sequence[Delivery] = fetch_some(sub)
            again |= {d.body: d.lease for d in some}
            assert not sub.settle([(d.lease, ACK) for d in some])
        stale = [d.lease for d in first]
        assert set(sub.settle([(lease, Release()) for lease in stale])) == set(stale)
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)
