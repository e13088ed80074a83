"""RABBITMQ_AMQPSTORM against the conformance suite, on both kinds of queues."""

from __future__ import annotations

import pytest
from rabbitmq_suite import OverRabbit

from fsdf_engine.brokers.rabbitmq_amqpstorm import RabbitmqAmqpstormBroker
from fsdf_engine.brokers.rabbitmq_rabbitpy import RabbitmqRabbitpyBroker
from fsdf_engine.contracts import Outgoing
from fsdf_engine.errors import PublishError
from fsdf_engine.outcomes import ACK
from fsdf_engine.testing.deliveries import QUEUE, collect


class TestAmqpstormQuorum(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqAmqpstormBroker:
        return RabbitmqAmqpstormBroker(rabbitmq_url)


class TestAmqpstormClassic(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqAmqpstormBroker:
        return RabbitmqAmqpstormBroker(rabbitmq_url + "?queue_type=classic")


class TestRabbitpy(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqRabbitpyBroker:
        return RabbitmqRabbitpyBroker(rabbitmq_url)


@pytest.mark.parametrize("long", ["n" * 129, "ä" * 65])
def test_name_of_a_header_that_the_library_would_cut_is_refused(rabbitmq_url, long):
    broker = RabbitmqAmqpstormBroker(rabbitmq_url)
    for headers in ({long: "v"}, {"k": {long: "v"}}, {"k": [{"deep": {long: 1}}]}):
        with pytest.raises(PublishError) as told:
            broker.publish([Outgoing(QUEUE, "1", b"{}", headers)])
        assert "more than 128 bytes" in str(told.value.__cause__)
    broker.publish([Outgoing(QUEUE, "2", b"{}", {long[:-1]: "v"})])
    sub = broker.subscribe(QUEUE, lease=10.0)
    [found] = collect(broker, sub, 1)
    assert (found.id, found.headers) == ("2", {long[:-1]: "v"})
    assert not sub.settle([(found.lease, ACK)])
    sub.close()
    broker.close()
