"""Very many delayed messages on RabbitMQ: they wait in the server, and all come in their time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from fsdf_engine.contracts import Outgoing
from fsdf_engine.outcomes import ACK
from fsdf_engine.registry import brokers
from fsdf_engine.testing.brokers import MB

COUNT, FIRST, SPAN = 10_000, 15.0, 30.0  # messages; seconds until the first is due, to the last
BOUND = 200.0


def resident():
    """Return the bytes of memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["rabbitmq_pika", "rabbitmq_amqpstorm"])
def test_many_delayed_messages_come_once_not_early_and_cost_the_worker_little(name, rabbitmq_url):
    """How late they are depends on who else uses the machine."""
    broker, chance, due = brokers.load(name)(rabbitmq_url), random.Random(7), {}
    began = time.time()
    for start in range(0, COUNT, 500):
        batch = []
        for n in range(start, start + 500):
            due[b"%d" % n] = at = began + FIRST + SPAN * chance.random()
            batch.append(Outgoing("delays", f"{n}", b"%d" % n, not_before=at))
        broker.publish(batch)
    sub = broker.subscribe("delays", lease=15.0)
    before = most = resident()
    left, early, end = set(due), 0.0, time.monotonic() + BOUND
    while left and time.monotonic() < end:
        for d in (found := sub.fetch(500, MB)):
            early = max(early, due[d.body] - time.time())
            left.remove(d.body)
        assert not sub.settle([(d.lease, ACK) for d in found])
        most = max(most, resident())
        sub.wait(1.0)
    assert not left
    assert early < 0.01
    assert most - before < 20 << 20
    assert broker.size("delays")[:2] == (0, 0)
    sub.close()
    broker.close()
