"""The brokers of RabbitMQ among greenlets: their clients block, in threads of their own."""

from __future__ import annotations

import os
import threading
import time

import pytest
from heart import Heart
from rabbitmq_suite import OverRabbit
from rabbitmq_tls import CERTIFICATE

from fsdf_engine.outcomes import Ack
from fsdf_engine.registry import brokers
from fsdf_engine.testing.brokers import outgoing
from fsdf_engine.testing.deliveries import QUEUE

KIND = os.environ["FSDF_TEST_GREEN_BROKER"]
MANY, BATCH = 2000, 100


class TestGreenRabbit(OverRabbit):
    @pytest.fixture
    def broker(self, rabbitmq_url):
        return brokers.load(KIND)(rabbitmq_url)


@pytest.fixture
def broker(rabbitmq_url):
    made = brokers.load(KIND)(rabbitmq_url)
    yield made
    made.close()


def test_other_greenlets_go_on_while_messages_come_and_go(broker):
    """Gaps, beside those that the machine makes by itself."""
    with Heart() as alone:
        time.sleep(1.0)  # that much time is what is measured
    sub = broker.subscribe(QUEUE, lease=30.0)

    def publish():
        for start in range(0, MANY, BATCH):
            broker.publish([outgoing(n) for n in range(start, start + BATCH)])

    with Heart() as heart:
        sub.fetch(BATCH, 1 << 20)
        publisher = threading.Thread(target=publish)
        publisher.start()
        seen = 0
        while seen < MANY:
            sub.wait(5.0)
            found = sub.fetch(BATCH, 1 << 20)
            sub.settle([(delivery.lease, Ack()) for delivery in found])
            seen += len(found)
        publisher.join()
        sub.wait(1.0)  # for nothing
    sub.close()
    print(
        f"gaps: p99 {heart.gap(0.99):.4f} s, longest {heart.gap(1):.4f} s;"
        f" alone {alone.gap(0.99):.4f} s, {alone.gap(1):.4f} s"
    )
    assert heart.gap(0.99) < 0.05 + alone.gap(0.99)


def test_tls_is_that_of_native_threads(rabbitmq_url):
    place = f"{os.environ['FSDF_TEST_GREEN_TLS']}/{rabbitmq_url.rpartition('/')[2]}"
    broker = brokers.load(KIND)(f"{place}?ssl_ca_certs={CERTIFICATE}")
    with Heart() as heart:
        for start in range(0, MANY, BATCH):
            broker.publish([outgoing(n) for n in range(start, start + BATCH)])
    assert broker.size(QUEUE).waiting == MANY
    assert len(heart.gaps) > 10
    broker.close()


def test_waiting_for_nothing_lets_the_hub_sleep(broker):
    sub = broker.subscribe(QUEUE, lease=30.0)
    sub.fetch(1, 1000)
    before = os.times()
    sub.wait(2.0)
    after = os.times()
    sub.close()
    assert sum(after[:2]) - sum(before[:2]) < 0.1  # seconds of CPU
