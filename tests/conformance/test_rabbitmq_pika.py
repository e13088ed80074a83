"""RABBITMQ_PIKA against the conformance suite, on quorum queues and on classic ones."""

from __future__ import annotations

import pytest
from helpers import until
from rabbitmq_suite import OverRabbit

from fsdf_engine.brokers import pika_wire
from fsdf_engine.brokers.rabbitmq_pika import RabbitmqPikaBroker
from fsdf_engine.outcomes import ACK, Release
from fsdf_engine.testing.deliveries import MB, QUEUE, collect, outgoing, take


class TestPikaQuorum(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqPikaBroker:
        return RabbitmqPikaBroker(rabbitmq_url)


class TestPikaClassic(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqPikaBroker:
        return RabbitmqPikaBroker(rabbitmq_url + "?queue_type=classic")


def test_who_never_finds_the_buffer_empty_is_sent_more_all_the_same(rabbitmq_url):
    """A consumer of few slots begins with a small prefetch, and learns that runs are short."""
    broker = RabbitmqPikaBroker(rabbitmq_url)
    sub = broker.subscribe(QUEUE, lease=30.0)
    broker.publish([outgoing(n) for n in range(500)])
    found = take(broker, sub, 4)
    until(lambda: sub.buffer)
    found += sub.fetch(100, MB)
    until(lambda: sub.buffer.sizes()[0] + len(found) > 100)
    found += collect(broker, sub, 500 - len(found))
    assert not sub.settle([(d.lease, ACK) for d in found])
    sub.close()
    broker.close()


def test_pika_without_the_short_way_does_all_the_same(rabbitmq_url, monkeypatch):
    """As a later version may be, whose connection has other methods inside."""
    monkeypatch.setattr(pika_wire, "HOOKS", ("_gone", "_gone_too"))
    broker = RabbitmqPikaBroker(rabbitmq_url)
    sub = broker.subscribe(QUEUE, lease=30.0)
    broker.publish([outgoing(n) for n in range(50)])
    found = collect(broker, sub, 50)
    assert sorted(d.body for d in found) == sorted(outgoing(n).body for n in range(50))
    assert not sub.settle([(found[0].lease, Release(state={"n": 1}))])
    [again] = collect(broker, sub, 1)
    assert (again.id, again.state) == (found[0].id, {"n": 1})
    assert not sub.settle([(d.lease, ACK) for d in [*found[1:], again]])
    sub.close()
    broker.close()
