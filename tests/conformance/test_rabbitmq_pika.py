"""RABBITMQ_PIKA against the conformance suite, on quorum queues and on classic ones."""

from __future__ import annotations

import pytest
from rabbitmq_suite import OverRabbit

from fsdf_engine.brokers.rabbitmq_pika import RabbitmqPikaBroker


class TestPikaQuorum(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqPikaBroker:
        return RabbitmqPikaBroker(rabbitmq_url)


class TestPikaClassic(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqPikaBroker:
        return RabbitmqPikaBroker(rabbitmq_url + "?queue_type=classic")
