"""RabbitMQ by TLS, by each client."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rabbitmq_tls import CERTIFICATE, secured

from fsdf_engine import Unavailable
from fsdf_engine.outcomes import Ack
from fsdf_engine.registry import brokers
from fsdf_engine.testing.brokers import collect, outgoing
from fsdf_engine.testing.deliveries import QUEUE

KINDS = ["rabbitmq_amqpstorm", "rabbitmq_pika"]
LARGE = b"x" * 3_000_000  # more than what fits into the system's buffers


@pytest.mark.parametrize("kind", KINDS)
def test_messages_of_every_size_come_and_go(kind, rabbitmq_url):
    with secured(rabbitmq_url) as url:
        broker = brokers.load(kind)(f"{url}?ssl_ca_certs={CERTIFICATE}")
        batch = [outgoing(n) for n in range(500)]
        large = [replace(outgoing(n), body=LARGE) for n in range(2)]
        broker.publish([*batch, *large])
        sub = broker.subscribe(QUEUE, lease=30.0)
        found = collect(broker, sub, 502)
        assert sorted(d.body for d in found) == sorted(o.body for o in (*batch, *large))
        assert sub.settle([(d.lease, Ack()) for d in found]) == []
        assert broker.size(QUEUE).waiting == 0
        sub.close()
        broker.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_nobody_knows_is_refused(kind, rabbitmq_url):
    with secured(rabbitmq_url) as url:
        broker = brokers.load(kind)(url)
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            broker.check()
        broker.close()
