"""The part of the brokers' suite about what other programs write into queues, and call them."""

from __future__ import annotations

import time

import pytest

from ..contracts import Broker, Capability, Delivery, Subscription
from ..errors import ConfigurationError
from ..outcomes import ACK, DeadLetter, Release
from .deliveries import BOUND, MB, QUEUE, Open, bodies, collect, counts, has, needs, outgoing, sized

__all__ = ["ForeignEntries"]


class ForeignEntries:
    """Every test must pass unchanged; see `BrokerConformance`."""

    def spoil(self, broker: Broker, queue: str) -> int:
        """Put into the queue, by the server's own client, entries that no `publish` would make.

        One of each kind: other types, text that is no UTF-8, side data of another form. Return how
        many messages that makes.
        """
        raise NotImplementedError("give the suite a way to write what cannot be read")

    def test_entries_that_cannot_be_read_keep_no_other_from_running(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.SHARED)
        broker.publish([outgoing(n) for n in range(10)])
        odd = self.spoil(broker, QUEUE)
        broker.publish([outgoing(n) for n in range(10, 20)])
        sub, found = open(), list[Delivery]()
        end = time.monotonic() + BOUND
        while len(found) < 20 + odd and time.monotonic() < end:
            found += sub.fetch(7, MB)
            if len(found) < 20 + odd:
                sub.wait(0.1)
        good = {outgoing(n).body for n in range(20)}
        others = [d for d in found if d.body not in good]
        assert good <= set(bodies(found))
        assert len(others) == odd
        for d in found:
            assert (type(d.body), type(d.id), type(d.deliveries)) == (bytes, str, int)
            d.id.encode()
            assert d.state is None or type(d.state) is dict
        if has(broker, Capability.SIZE):
            assert broker.size(QUEUE) == sized(broker, 0, 0, 20 + odd, 0)
        assert not sub.settle([(d.lease, ACK) for d in found if d.body in good])
        self.end_of_what_cannot_be_read(broker, sub, others)

    def end_of_what_cannot_be_read(
        self, broker: Broker, sub: Subscription, others: list[Delivery]
    ) -> None:
        """It goes back, is found dead, lives again and ends as any other message."""
        assert not sub.settle([(d.lease, Release(0.0, {"attempt": 1})) for d in others])
        again = collect(broker, sub, len(others))
        assert sorted(bodies(again)) == sorted(bodies(others))
        assert all(counts(broker, d, 0) for d in again)
        if not has(broker, Capability.DEAD_LETTER):
            return
        assert not sub.settle([(d.lease, DeadLetter("unreadable")) for d in again])
        letters = broker.dead_letters(QUEUE)
        assert sorted(x.body for x in letters) == sorted(bodies(others))
        assert broker.replay(QUEUE, [letters[0].id]) == 1
        assert broker.replay(QUEUE) == len(others) - 1
        sub.rest()
        assert broker.purge(QUEUE) == len(others)
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 0)

    def test_names_that_cannot_be_a_queue_are_refused(self, broker: Broker) -> None:
        for name in ("", "\ud800", None, 5):
            with pytest.raises(ConfigurationError, match="queue"):
                broker.valid_queue(name)  # type: ignore[arg-type]
        for name in (QUEUE, "a b:c", "очередь", "{x}", "a{b}c", "%d"):
            broker.valid_queue(name)
