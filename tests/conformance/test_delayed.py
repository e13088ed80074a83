"""What waits for its time is listed, by every broker of ours that can."""

from __future__ import annotations

import time

import pytest

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.brokers.redis_brpoplpush import RedisBrpopLpushBroker
from fsdf_engine.brokers.redis_list import RedisBroker
from fsdf_engine.brokers.redis_stream import RedisStreamBroker
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.contracts import Outgoing, Subscription
from fsdf_engine.outcomes import Release

QUEUE = "later"


@pytest.fixture(params=[
    MemoryBroker, SqliteBroker, RedisBroker, RedisAckBroker, RedisStreamBroker,
    RedisBrpopLpushBroker,
])  # fmt: skip
def broker(request, tmp_path):
    cls = request.param
    if cls.__name__.startswith("Redis"):
        made = cls(request.getfixturevalue("redis_url"))
    else:
        made = cls(str(tmp_path / "queues.db") if cls is SqliteBroker else "")
    yield made
    made.close()


def test_what_waits_for_its_time_is_listed_the_next_one_first(broker):
    now = time.time()
    broker.publish([
        Outgoing(QUEUE, "now", b"{}"),
        Outgoing(QUEUE, "c", b'{"n": 3}', not_before=now + 90, priority=-3),
        Outgoing(QUEUE, "a", b'{"n": 1}', delay=30.0),
        Outgoing(QUEUE, "b", b'{"n": 2}', not_before=now + 60, priority=5),
        Outgoing("elsewhere", "d", b'{"n": 4}', delay=30.0),
    ])  # fmt: skip
    found = broker.delayed(QUEUE)
    assert [(each.queue, each.body, each.priority) for each in found] == [
        (QUEUE, b'{"n": 1}', 0), (QUEUE, b'{"n": 2}', 5), (QUEUE, b'{"n": 3}', -3),
    ]  # fmt: skip
    assert [each.not_before - now for each in found] == pytest.approx([30, 60, 90], abs=5)
    assert [each.body for each in broker.delayed(QUEUE, 2)] == [b'{"n": 1}', b'{"n": 2}']
    assert broker.size(QUEUE)[:2] == (1, 3)
    assert broker.delayed("nowhere") == []


def test_what_is_put_back_for_later_is_listed(broker):
    broker.publish([Outgoing(QUEUE, "a", b'{"n": 1}')])
    subscription: Subscription = broker.subscribe(QUEUE, lease=30.0)
    try:
        [delivery] = subscription.fetch(9, 1 << 20)
        subscription.settle([(delivery.lease, Release(60.0, {"attempt": 1}))])
        assert [each.body for each in broker.delayed(QUEUE)] == [b'{"n": 1}']
    finally:
        subscription.close()
