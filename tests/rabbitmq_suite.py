"""What the suites of RabbitMQ's brokers share, whichever client they stand on."""

from __future__ import annotations

import os
import socket

import pika
from helpers import until

from fsdf_engine.contracts import Broker, Subscription
from fsdf_engine.outcomes import Ack
from fsdf_engine.testing.brokers import BrokerConformance, fetch_some, outgoing
from fsdf_engine.testing.deliveries import Open, collect

__all__ = ["OverRabbit", "spoil_queue"]


class OverRabbit(BrokerConformance):
    """The suite over RabbitMQ, by whichever client."""

    def spoil(self, broker: Broker, queue: str) -> int:
        return spoil_queue(broker, queue)

    def cut(self, broker: Broker, sub: Subscription) -> None:
        owner = sub._owner

        def shut() -> None:
            if (connection := owner.current) is not None:
                storm = getattr(connection, "_client", None)
                found = storm.socket if storm else connection._connection._transport._sock
                found.shutdown(socket.SHUT_RDWR)

        owner(shut)
        until(lambda: owner(lambda: owner.current is None))

    def test_a_forked_child_has_connections_of_its_own(self, broker: Broker, open: Open) -> None:
        sub = open()
        broker.publish([outgoing(1)])
        [found] = fetch_some(sub)
        if (child := os.fork()) == 0:
            published = False
            try:
                broker.publish([outgoing(n) for n in (2, 3)])
                published = True
            finally:
                os._exit(0 if published else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert sub.settle([(found.lease, Ack())]) == []
        assert len(collect(broker, sub, 2)) == 2


def spoil_queue(broker: Broker, queue: str) -> int:
    """Publish what no `publish` of ours would, by the client of another program."""
    odd = [
        (b"", None),
        (b"\xff\xfe\x00", {}),
        (b"text", {"content_type": "text/plain", "content_encoding": "latin-1", "type": "x"}),
        (b"[1]", {"headers": {"n": 5, "deep": {"a": [1, None, b"x"]}, "fsdf-state": "no JSON"}}),
        (b"[2]", {"headers": {"fsdf-state": 7, "fsdf-lost": "many", "fsdf-due": "soon"}}),
        (b"[3]", {"headers": {"fsdf-lost": -1, "fsdf-due": -(2**40), "fsdf-more": "x"}}),
        (b"[4]", {"headers": {"x-death": "no list", "x-first-death-queue": 7}, "priority": 255}),
        (b"[5]", {"timestamp": 2**40, "delivery_mode": 1, "correlation_id": "c", "app_id": "a"}),
        (b"[7]", {"headers": {"fsdf-more": "inf", "fsdf-due": 2**52}}),
        (b"[8]", {"headers": {"fsdf-more": "nan"}}),
        (b"[9]", {"headers": {"fsdf-more": "9" * 400}}),
        (b"[10]", {"headers": {"fsdf-more": 2**62}}),
        (b"[11]", {"headers": {"fsdf-more": {"a": 1}}}),
        (b"[12]", {"headers": {"fsdf-more": "-1e300"}}),
    ]
    with pika.BlockingConnection(pika.URLParameters(broker.url.partition("?")[0])) as connection:
        channel = connection.channel()
        for body, properties in odd:
            told = None if properties is None else pika.BasicProperties(**properties)
            channel.basic_publish("", queue, body, told)
        channel.queue_bind(queue, "amq.topic", "#")
        channel.basic_publish("amq.topic", b"\xff\xfe", b"[6]")  # a key that is no text
        channel.queue_unbind(queue, "amq.topic", "#")
        channel.queue_declare(queue, passive=True)
    return len(odd) + 1
