"""RABBITMQ_PIKA against the conformance suite, on quorum queues and on classic ones."""

from __future__ import annotations

import pytest
from helpers import until
from rabbitmq_suite import OverRabbit

from fsdf_engine.brokers.rabbitmq_pika import RabbitmqPikaBroker
from fsdf_engine.outcomes import ACK
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
