"""RedisBrpopLpush against the conformance suite, and what only owner lists do."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from helpers import until
from redis_leases import (
    BODY,
    EVERYTHING,
    Q,
    RedisLeases,
    blocked,
    ended,
    patiently,
    settled,
    spoil_lists,
    take,
)

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.brokers.redis_brpoplpush import RedisBrpopLpushBroker
from fsdf_engine.contracts import Broker, Outgoing
from fsdf_engine.errors import Unavailable
from fsdf_engine.outcomes import Release
from fsdf_engine.testing.brokers import MB, BrokerConformance, outgoing


class TestRedisBrpopLpush(BrokerConformance):
    @pytest.fixture
    def broker(self, redis_url: str) -> RedisBrpopLpushBroker:
        return RedisBrpopLpushBroker(redis_url)

    def spoil(self, broker: Broker, queue: str) -> int:
        return spoil_lists(broker.url, queue)


class TestOwnerListLeases(RedisLeases):
    @pytest.fixture
    def make(self) -> Callable[[str], RedisBrpopLpushBroker]:
        return RedisBrpopLpushBroker

    def test_foreign_push_wakes_a_waiter_and_is_taken_in_order(self, client, sub):
        assert not sub.fetch(10, MB)
        thread = blocked(sub, client)
        client.lpush(Q, b'{"n":0}', b'{"n":1}')
        assert ended(thread)
        client.lpush(Q, b'{"n":2}')
        assert [d.body for d in take(sub, 3)] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']

    def test_two_identical_foreign_messages_are_two(self, broker, client, sub):
        client.lpush(Q, BODY, BODY, b"")
        one, two, empty = take(sub, 3)
        assert one.body == two.body == BODY
        assert one.id != two.id
        settled(sub, [one])
        assert broker.size(Q) == (0, 0, 2, 0)
        settled(sub, [empty])
        sub.settle([(two.lease, Release(60.0))])
        assert broker.size(Q) == (0, 1, 0, 0)

    def test_bodies_stand_in_a_list_of_their_lease_until_all_are_settled(self, broker, client, sub):
        broker.publish([Outgoing(Q, "", b"%d" % n) for n in range(3)])
        found = take(sub, 3)
        [owner] = client.keys("{q}:o:*")
        assert client.lrange(owner, 0, -1) == [b"bbb", b"0", b"1", b"2"]
        settled(sub, [found[1]])
        assert client.lrange(owner, 0, -1) == [b"b-b", b"0", b"", b"2"]
        settled(sub, [found[0], found[2]])
        assert not client.keys("*")

    def test_large_batches_are_taken_in_parts_and_settled_together(self, broker, client, sub):
        broker.publish([outgoing(n, Q) for n in range(1000)])
        found = take(sub, 1000)
        assert [d.body for d in found] == [outgoing(n).body for n in range(1000)]
        settled(sub, found)
        assert not client.keys("*")

    def test_both_kinds_of_list_broker_share_a_queue(self, redis_url, broker, client, sub):
        ack = RedisAckBroker(redis_url)
        other = ack.subscribe(Q, lease=30.0)
        broker.publish([outgoing(n, Q) for n in range(4)])
        mine, theirs = take(sub, 2), take(other, 2)
        sub.settle([(d.lease, Release(0.0, {"a": 1})) for d in reversed(mine)])
        again = take(other, 2)
        assert [(d.id, d.state) for d in again] == [(d.id, {"a": 1}) for d in mine]
        other.settle([(d.lease, Release(60.0)) for d in (*again, *theirs)])
        assert broker.size(Q).delayed == 4
        assert broker.purge(Q, EVERYTHING) == 4
        assert not client.keys("*")
        other.close()
        ack.close()

    def test_batch_whose_answer_was_lost_comes_back_uncounted(self, own_redis, monkeypatch):
        monkeypatch.setattr("fsdf_engine.brokers.redis_connection.TIMEOUT", 0.2)
        server = own_redis()
        broker = RedisBrpopLpushBroker(server.url)
        sub = broker.subscribe(Q, lease=600.0)
        assert not sub.fetch(1, MB)
        broker.publish([outgoing(n, Q) for n in range(3)])
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(Unavailable):
            sub.fetch(2, MB)
        server.process.send_signal(signal.SIGCONT)
        until(lambda: broker.size(Q).leased == 2)
        found = patiently(take, sub, 3)
        assert [(d.body, d.deliveries) for d in found] == [(outgoing(n).body, 0) for n in range(3)]
        sub.close()
        broker.close()
