"""The part of the suite of brokers that is about the names of queues."""

from __future__ import annotations

import pytest

from ..contracts import Broker, Capability, Outgoing, Part
from ..outcomes import ACK, DeadLetter, Release, Verdict
from .deliveries import MB, QUEUE, Open, bodies, drain, needs, outgoing

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
        assert bodies(drain(open())) == [b'{"n":1}']
        assert broker.purge(other) == 1

    def test_queues_are_those_that_hold_anything_in_any_part(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        names = [f"part.{part}" for part in PARTS if part != "leased"]
        if Capability.LEASE in broker.capabilities:
            names.append("part.leased")
        broker.publish([outgoing(n, name) for n, name in enumerate(names)])
        for name in names:
            if name == "part.waiting":
                continue
            sub = broker.subscribe(name, lease=30.0)
            [delivery] = sub.fetch(1, MB)
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
        sub = open()
        broker.publish([outgoing(1), outgoing(2)])
        first, second = drain(sub)
        sub.settle([(first.lease, ACK), (second.lease, Release())])
        assert found(broker, before) == ["conformance"]
        sub.settle([(d.lease, ACK) for d in drain(sub)])
        assert found(broker, before) == []

    def test_queues_of_every_priority_and_delay_are_named(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
        needs(broker, Capability.PRIORITY)
        names = {n: f"priority.{n}" for n in (*range(10), -3, -6, -9)}
        broker.publish([outgoing(n, name, priority=n) for n, name in names.items()])
        broker.publish([outgoing(1, "later", delay=60.0)])
        broker.publish([outgoing(1, "much.later", delay=60.0, priority=-3)])
        every = sorted(["later", "much.later", *names.values()])
        assert found(broker, before) == every
        for name in every:
            broker.purge(name, ALL)

    def test_odd_names_of_queues_are_named_as_they_are(
        self, broker: Broker, open: Open, before: set[str]
    ) -> None:
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
        names = sorted(f"many.{n}" for n in range(1000))
        broker.publish([outgoing(1, name) for name in names])
        assert found(broker, before) == names
        for name in names:
            broker.purge(name)
