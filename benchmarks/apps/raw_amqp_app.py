"""A client of RabbitMQ alone: BENCH_CLIENT is pika or amqpstorm.

The worker acknowledges each 100 messages by `multiple`; the publisher waits for the confirms of
each 500. Bodies are as long as those of fsdf.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import amqpstorm
import pika
from pamqp import commands

from benchmarks.meter import hit

URL, QUEUE = os.environ["BENCH_REDIS_URL"], "bench"
CLIENT = os.environ.get("BENCH_CLIENT", "pika")
QUORUM = {"x-queue-type": "quorum"} if os.environ.get("BENCH_QUORUM") == "1" else {}
ACKED, CONFIRMED, PREFETCH = 100, 500, 1000
PAD = b" " * 110
where = pika.URLParameters(URL)


def _acking(ack: Callable[[int], object]) -> Callable[[int, bytes], None]:
    def take(tag: int, body: bytes) -> None:
        hit(int(body))
        if tag % ACKED == 0:
            ack(tag)

    return take


class Pika:
    """Its connection for event loops, as the blocking one waits for each confirm."""

    def __init__(self) -> None:
        self.loop = pika.adapters.select_connection.IOLoop()
        self.channel: Any = None
        self.sent = self.confirmed = 0
        pika.SelectConnection(where, on_open_callback=self._open, custom_ioloop=self.loop)
        self.loop.start()

    def _open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        self.channel = channel
        channel.queue_declare(QUEUE, durable=True, arguments=QUORUM, callback=self._there)

    def _there(self, _: Any) -> None:
        self.channel.confirm_delivery(self._confirm, callback=lambda _: self.loop.stop())

    def _confirm(self, frame: Any) -> None:
        told = frame.method
        self.confirmed = told.delivery_tag if told.multiple else self.confirmed + 1
        if self.confirmed >= self.sent:
            self.loop.stop()

    def publish(self, bodies: list[bytes]) -> None:
        properties = pika.BasicProperties(delivery_mode=2)
        for body in bodies:
            self.channel.basic_publish("", QUEUE, body, properties, mandatory=True)
        self.sent += len(bodies)
        while self.confirmed < self.sent:
            self.loop.start()

    def consume(self) -> None:
        take = _acking(lambda tag: self.channel.basic_ack(tag, multiple=True))
        self.channel.basic_qos(prefetch_count=PREFETCH)
        self.channel.basic_consume(QUEUE, lambda c, m, p, body: take(m.delivery_tag, body))
        self.loop.start()


class Storm:
    """amqpstorm waits for each confirm, too, unless it is not told that there are any."""

    def __init__(self) -> None:
        login = where.credentials
        self.connection = amqpstorm.Connection(
            where.host, login.username, login.password, where.port, virtual_host=where.virtual_host
        )
        self.channel = self.connection.channel()
        self.channel.queue.declare(QUEUE, durable=True, arguments=QUORUM)
        self.sent = self.confirmed = 0
        self.all = threading.Event()
        self.on_frame = self.channel.on_frame
        self.channel.on_frame = self._came
        self.channel.rpc_request(commands.Confirm.Select())

    def _came(self, frame: Any) -> None:
        if frame.name != "Basic.Ack":
            self.on_frame(frame)
            return
        self.confirmed = frame.delivery_tag if frame.multiple else self.confirmed + 1
        if self.confirmed >= self.sent:
            self.all.set()

    def publish(self, bodies: list[bytes]) -> None:
        self.all.clear()
        self.sent += len(bodies)
        for body in bodies:
            told = {"delivery_mode": 2}
            self.channel.basic.publish(body, QUEUE, properties=told, mandatory=True)
        self.all.wait()

    def consume(self) -> None:
        take = _acking(lambda tag: self.channel.basic.ack(tag, multiple=True))

        def came(body: bytes, channel: Any, method: dict[str, Any], properties: Any) -> None:
            take(method["delivery_tag"], body)

        self.channel.basic.qos(PREFETCH)
        self.channel.basic.consume(came, QUEUE)
        self.channel.start_consuming(to_tuple=True, auto_decode=False)


kinds: dict[str, Any] = {"pika": Pika, "amqpstorm": Storm}
client: Any = None


def publish_many(numbers: Iterable[int]) -> None:
    global client
    client = client or kinds[CLIENT]()
    bodies = [b"%d" % n + PAD for n in numbers]
    for first in range(0, len(bodies), CONFIRMED):
        client.publish(bodies[first : first + CONFIRMED])


publish = publish_many

if __name__ == "__main__":
    kinds[CLIENT]().consume()
