"""REDIS against the conformance suite, and what only it does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis_leases import spoil_lists

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.brokers.redis_connection import Connection, Unanswered
from fsdf_engine.brokers.redis_list import RedisBroker
from fsdf_engine.contracts import Broker, Capability, Outgoing, Part
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.testing.brokers import MB, BrokerConformance, fetch_some, outgoing

Q = "q"


class TestRedisList(BrokerConformance):
    @pytest.fixture
    def broker(self, redis_url: str) -> RedisBroker:
        return RedisBroker(redis_url)

    def spoil(self, broker: Broker, queue: str) -> int:
        return spoil_lists(broker.url, queue)


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(redis_url)
    yield broker
    broker.close()


def test_at_most_once_is_stated(broker):
    assert Capability.LEASE not in broker.capabilities
    assert "at most once" in (RedisBroker.__doc__ or "").lower()


def test_what_was_taken_leaves_no_trace_on_the_server(broker, redis_url):
    sub = broker.subscribe(Q, lease=30.0)
    broker.publish([outgoing(n, Q, priority=n % 3) for n in range(300)])
    found = []
    while len(found) < 300:
        found += sub.fetch(500, MB)
    with redis.Redis.from_url(redis_url) as client:
        assert not client.keys("*")
        sent = client.info("stats")["total_commands_processed"]
        assert not sub.settle([(d.lease, ACK) for d in found])
        assert client.info("stats")["total_commands_processed"] == sent + 1  # our own INFO
    sub.close()


def test_identity_and_priority_survive_releases_and_death(broker):
    sub = broker.subscribe(Q, lease=30.0)
    body = b"line one\nline:two"
    broker.publish([Outgoing(Q, "1", body, priority=6)])
    [d] = sub.fetch(1, MB)
    name = d.id
    for verdict in (
        Release(),
        Release(0.01),
        Release(0.0, {"attempt": 3}),
        Release(0.01, {"x": 1}),
    ):
        assert not sub.settle([(d.lease, verdict)])
        [d] = fetch_some(sub, 1)
        assert (d.id, d.body, d.state) == (name, body, verdict.state)
    sub.settle([(d.lease, DeadLetter("bad", "trace"))])
    [letter] = broker.dead_letters(Q)
    assert letter[:4] == (name, body, "bad", "trace")
    sub.close()


def test_prefetch_taken_back_keeps_its_order(broker):
    sub = broker.subscribe(Q, lease=30.0)
    broker.publish([outgoing(n, Q) for n in range(8)])
    sub.settle([(d.lease, Release()) for d in reversed(sub.fetch(5, MB))])
    assert [d.body for d in sub.fetch(8, MB)] == [outgoing(n).body for n in range(8)]
    sub.close()


def test_what_was_given_back_without_an_answer_is_not_given_back_again(broker, monkeypatch):
    sub = broker.subscribe(Q, lease=30.0)
    broker.publish([outgoing(1, Q)])
    [d] = sub.fetch(1, MB)
    call = Connection.call

    def unanswered(line, *commands, **options):
        call(line, *commands, **options)
        raise Unanswered("the answer is lost")

    monkeypatch.setattr(Connection, "call", unanswered)
    assert not sub.settle([(d.lease, Release())])  # a repeat would make two of it
    monkeypatch.undo()
    assert broker.size(Q).waiting == 1
    sub.close()


def test_takes_over_what_confirming_consumers_left(broker, redis_url):
    other = RedisAckBroker(redis_url)
    gone, sub = other.subscribe(Q, lease=0.1), broker.subscribe(Q, lease=30.0)
    other.publish([outgoing(1, Q)])
    [d] = gone.fetch(1, MB)
    [again] = fetch_some(sub)
    assert (again.id, again.body, again.deliveries) == (d.id, d.body, 1)
    assert broker.purge(Q, Part.WAITING | Part.DELAYED | Part.LEASED | Part.DEAD) == 0
    for each in (gone, sub, other):
        each.close()
