"""RABBITMQ_AMQPSTORM against the conformance suite, on both kinds of queues."""

from __future__ import annotations

import pytest
from rabbitmq_suite import OverRabbit

from fsdf_engine.brokers.rabbitmq_amqpstorm import RabbitmqAmqpstormBroker
from fsdf_engine.brokers.rabbitmq_rabbitpy import RabbitmqRabbitpyBroker


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
