"""The part of the suite of brokers that is about the names of queues."""

from __future__ import annotations

import pytest

from ..contracts import Broker, Capability, Outgoing, Part
from ..outcomes import ACK, DeadLetter, Release, Verdict
from .deliveries import QUEUE, Open, bodies, collect, has, needs, outgoing, take

__all__ = ["NamesConformance"]

ALL = Part.WAITING | Part.DELAYED | Part.LEASED | Part.DEAD
PARTS = {
    "waiting": Part.WAITING,
    "delayed": Part.DELAYED,
    "leased": Part.LEASED,
    "dead": Part.DEAD,
}
_ENDS: dict[str, Verdict] = {"part.delayed": Release(60.0), "part.dead": DeadLetter("bad")}


def found(broker: Broker, before: set[str]) -> list[str]:
    """Return the queues that the test has, as the broker orders them."""
    names = list(broker.queues())
    assert names == sorted(set(names))
    return [name for name in names if name not in before]


class NamesConformance:
    """Derived from by `BrokerConformance`."""

    @pytest.fixture
    def before(self, broker: Broker) -> set[str]:
        """Return the queues that others have."""
        return set(broker.queues())

    def test_queues_do_not_mix(self, broker: Broker, open: Open) -> None:
        other = QUEUE + ".other"
        broker.publish([outgoing(1), outgoing(2, other)])
        assert bodies(collect(broker, open(), 1)) == [b'{"n":1}']
        assert broker.purge(other) == 1

    def test_queues_are_those_that_hold_anything_in_any_part(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        needs(broker, Capability.LISTED)
        lacking = {"leased": Capability.LEASE | Capability.SIZE_LEASED, "delayed": Capability.DELAY}
        names = [
            f"part.{part}" for part in PARTS if part not in lacking or has(broker, lacking[part])
        ]
        broker.publish([outgoing(n, name) for n, name in enumerate(names)])
        for name in names:
            if name == "part.waiting":
                continue
            sub = broker.subscribe(name, lease=30.0)
            [delivery] = take(broker, sub, 1)
            if verdict := _ENDS.get(name):
                sub.settle([(delivery.lease, verdict)])
                sub.close()
        assert found(broker, before) == sorted(names)
        for name in names:
            broker.purge(name, PARTS[name.partition(".")[2]])
            assert name not in broker.queues()
        assert found(broker, before) == []

    def test_queue_is_named_until_its_last_message_has_ended(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        needs(broker, Capability.LISTED)
        sub = open()
        broker.publish([outgoing(1), outgoing(2)])
        first, second = collect(broker, sub, 2)
        sub.settle([(first.lease, ACK), (second.lease, Release())])
        assert found(broker, before) == ["conformance"]
        sub.settle([(d.lease, ACK) for d in collect(broker, sub, 1)])
        assert found(broker, before) == []

    def test_queues_of_every_priority_and_delay_are_named(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        needs(broker, Capability.LISTED)
        needs(broker, Capability.PRIORITY)
        names = {n: f"priority.{n}" for n in (*range(10), -3, -6, -9)}
        broker.publish([outgoing(n, name, priority=n) for n, name in names.items()])
        later = ["later", "much.later"] if has(broker, Capability.DELAY) else []
        for priority, name in zip((0, -3), later):
            broker.publish([outgoing(1, name, delay=60.0, priority=priority)])
        every = sorted([*later, *names.values()])
        assert found(broker, before) == every
        for name in every:
            broker.purge(name, ALL)

    def test_odd_names_of_queues_are_named_as_they_are(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        needs(broker, Capability.LISTED)
        needs(broker, Capability.DELAY)
        names = sorted(["a b", "a:b", "{a}", "{a}:b", "a}:b{", "漢字🎉", "a\nb", "*", "a'b\"%"])
        broker.publish([Outgoing(name, "1", b"{}") for name in names])
        broker.publish([Outgoing(name, "2", b"{}", delay=60.0) for name in names])
        assert found(broker, before) == names
        for name in names:
            broker.purge(name, Part.WAITING)
        assert found(broker, before) == names
        for name in names:
            broker.purge(name, Part.DELAYED)
        assert found(broker, before) == []

    def test_a_thousand_queues_are_all_named(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        needs(broker, Capability.LISTED)
        names = sorted(f"many.{n}" for n in range(1000))
        broker.publish([outgoing(1, name) for name in names])
        assert found(broker, before) == names
        for name in names:
            broker.purge(name)
