"""RABBITMQ_PIKA against the conformance suite, on quorum queues and on classic ones."""

from __future__ import annotations

import socket

import pytest
from helpers import until
from rabbitmq_suite import spoil_queue

from fsdf_engine.brokers.rabbitmq_pika import RabbitmqPikaBroker
from fsdf_engine.contracts import Broker, Subscription
from fsdf_engine.testing.brokers import BrokerConformance


class OverPika(BrokerConformance):
    def spoil(self, broker: Broker, queue: str) -> int:
        return spoil_queue(broker, queue)

    def cut(self, broker: Broker, sub: Subscription) -> None:
        owner = sub._owner

        def shut() -> None:
            if owner.current is not None:
                owner.current._connection._transport._sock.shutdown(socket.SHUT_RDWR)

        owner(shut)
        until(lambda: owner(lambda: owner.current is None))


class TestPikaQuorum(OverPika):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqPikaBroker:
        return RabbitmqPikaBroker(rabbitmq_url)


class TestPikaClassic(OverPika):
    @pytest.fixture
    def broker(self, rabbitmq_url: str) -> RabbitmqPikaBroker:
        return RabbitmqPikaBroker(rabbitmq_url + "?queue_type=classic")
