"""REDIS_ACK_ABLE against the conformance suite, and what only it does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from helpers import BOUND, free_port, until
from redis_leases import BODY, Q, RedisLeases, blocked, ended, settled, spoil_lists, take

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.contracts import Broker, Outgoing, Part, Subscription
from fsdf_engine.errors import ServerRefused, Unavailable
from fsdf_engine.outcomes import DeadLetter, Release
from fsdf_engine.registry import brokers
from fsdf_engine.testing.brokers import MB, BrokerConformance, outgoing
from fsdf_engine.testing.deliveries import QUEUE


class TestRedisAck(BrokerConformance):
    @pytest.fixture
    def broker(self, redis_url: str) -> RedisAckBroker:
        return RedisAckBroker(redis_url)

    def spoil(self, broker: Broker, queue: str) -> int:
        return spoil_lists(broker.url, queue)


class TestRedisAckLeases(RedisLeases):
    @pytest.fixture
    def make(self) -> type[RedisAckBroker]:
        return RedisAckBroker


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Another program."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisAckBroker]:
    broker = RedisAckBroker(redis_url)
    yield broker
    broker.close()


@pytest.fixture
def sub(broker: RedisAckBroker) -> Iterator[Subscription]:
    sub = broker.subscribe(Q, lease=30.0)
    yield sub
    sub.close()


def test_foreign_push_wakes_a_waiter_and_is_taken_in_order(client, sub):
    assert not sub.fetch(10, MB)
    thread = blocked(sub, client)
    client.lpush(Q, b'{"n":0}', b'{"n":1}')
    assert ended(thread)
    client.lpush(Q, b'{"n":2}')
    assert [d.body for d in take(sub, 3)] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def test_two_identical_foreign_messages_are_two(broker, client, sub):
    client.lpush(Q, BODY, BODY)
    one, two = take(sub, 2)
    assert one.body == two.body == BODY
    assert one.id != two.id
    settled(sub, [one])
    assert broker.size(Q) == (0, 0, 1, 0)
    sub.settle([(two.lease, Release(60.0))])
    client.lpush(Q, BODY)
    [three] = take(sub, 1)
    sub.settle([(three.lease, Release(60.0))])
    assert broker.size(Q) == (0, 2, 0, 0)


def test_queue_holds_bare_bodies_so_that_its_length_is_true(broker, client):
    broker.publish([Outgoing(Q, "1", BODY), Outgoing(Q, "2", BODY)])
    assert client.lrange(Q, 0, -1) == [BODY, BODY]


def test_due_message_becomes_a_bare_body(broker, client, sub):
    broker.publish([Outgoing(Q, "1", BODY, not_before=1.0), outgoing(2, Q, not_before=2.0)])
    assert [d.body for d in sub.fetch(5, 1)] == [BODY]
    assert client.lrange(Q, 0, -1) == [b'{"n":2}']


def test_a_fetch_of_240_holds_two_leases_and_no_more(broker, client, sub):
    broker.publish([outgoing(n, Q) for n in range(300)])
    found = sub.fetch(240, 10 * MB)
    assert [d.body for d in found] == [outgoing(n).body for n in range(240)]
    assert client.zcard("{q}:leases") == 2
    settled(sub, list(found))
    assert client.zcard("{q}:leases") == 0
    assert not client.keys("{q}:b:*")


def test_limit_is_kept_when_it_is_no_multiple_of_a_batch(broker, sub):
    broker.publish([outgoing(n, Q) for n in range(300)])
    assert [len(sub.fetch(limit, 10 * MB)) for limit in (1, 119, 121)] == [1, 119, 121]


def test_bytes_are_kept_when_small_messages_are_followed_by_large_ones(broker, sub):
    broker.publish([Outgoing(Q, "", b"small")] * 240)
    assert len(sub.fetch(240, MB)) == 240
    large = [bytes([65 + n]) * 200_000 for n in range(20)]
    broker.publish([Outgoing(Q, "", body) for body in large])
    got: list[bytes] = []
    while len(got) < 20:
        found = sub.fetch(100, MB)
        assert 1 <= len(found) <= 6
        got += [d.body for d in found]
    assert got == large


def test_id_of_a_bare_message_is_the_same_over_all_its_deliveries(broker, client, sub):
    client.lpush(Q, b"0", BODY)
    [zero, d] = take(sub, 2)
    name = d.id
    for verdict in (
        Release(),
        Release(0.01),
        Release(0.0, {"attempt": 3}),
        Release(0.01, {"x": 1}),
    ):
        sub.settle([(d.lease, verdict)])
        [d] = take(sub, 1)
        assert d.id == name
    sub.settle([(d.lease, DeadLetter("bad"))])
    assert [letter.id for letter in broker.dead_letters(Q)] == [name]


def test_release_pokes_past_waiters_that_are_gone(broker, client, sub):
    broker.publish([outgoing(1, Q)])
    [d] = take(sub, 1)
    client.sadd("{q}:waiters", *range(10**9, 10**9 + 50))
    other = broker.subscribe(Q, lease=30.0)
    assert not other.fetch(1, MB)
    thread = blocked(other, client)
    sub.settle([(d.lease, Release(0.0, {"attempt": 1}))])
    assert ended(thread)
    assert take(other, 1)[0].id == d.id
    other.close()


def test_dead_waiters_are_forgotten(broker, client):
    client.sadd("{q}:waiters", *range(10**9, 10**9 + 50))
    broker.publish([outgoing(1, Q, delay=60.0)])
    assert client.scard("{q}:waiters") == 0


def test_poked_consumer_that_leaves_some_wakes_the_next(broker, client, sub):
    broker.publish([outgoing(n, Q) for n in range(2)])
    found = take(sub, 2)
    others = [broker.subscribe(Q, lease=30.0) for _ in range(2)]
    threads = [blocked(other, client) for other in others]
    sub.settle([(d.lease, Release(0.0, {"attempt": 1})) for d in found])
    until(lambda: not all(thread.is_alive() for thread in threads))
    if threads[0].is_alive():
        threads.reverse()
        others.reverse()
    assert len(others[0].fetch(1, MB)) == 1
    assert ended(threads[1])
    assert len(others[1].fetch(1, MB)) == 1
    for other in others:
        other.close()


def test_consumer_that_leaves_due_messages_wakes_the_next(broker, client, sub):
    others = [broker.subscribe(Q, lease=30.0) for _ in range(2)]
    threads = [blocked(other, client) for other in others]
    broker.publish([outgoing(n, Q, not_before=1.0) for n in range(2)])  # one of them is told
    until(lambda: not all(thread.is_alive() for thread in threads))
    told = next(n for n, thread in enumerate(threads) if not thread.is_alive())
    assert len(others[told].fetch(1, MB)) == 1
    assert ended(threads[1 - told])
    assert len(others[1 - told].fetch(1, MB)) == 1
    for other in others:
        other.close()


def test_batch_whose_answer_was_lost_comes_at_once_and_is_not_counted(
    broker, client, sub, monkeypatch
):
    broker.publish([outgoing(n, Q) for n in range(130)] + [outgoing(200, Q, priority=9)])
    assert sub._fetching.open()

    def lose(*_: object) -> float:
        until(lambda: client.zcard("{q}:leases") == 2)
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(sub._fetching, "_receive", lose)
        with pytest.raises(Unavailable):
            sub.fetch(240, MB)
    found = take(sub, 131)
    assert [d.body for d in found] == [outgoing(n).body for n in (200, *range(130))]
    assert {d.deliveries for d in found} == {0}
    settled(sub, found)
    assert broker.size(Q) == (0, 0, 0, 0)


def test_wake_that_reaches_the_server_before_the_wait_ends_it_all_the_same(sub, monkeypatch):
    age = sub._age
    monkeypatch.setattr(sub, "_age", lambda: (sub.wake(), age())[1])  # just before it is sent
    began = time.monotonic()
    sub.wait(BOUND)
    assert time.monotonic() - began < BOUND / 2


def test_waiting_costs_few_commands(client, sub):
    before = client.info("stats")["total_commands_processed"]
    assert not sub.fetch(500, MB)
    sub.wait(0.2)
    assert client.info("stats")["total_commands_processed"] - before < 80


def test_purge_of_a_family_leaves_no_key(broker, client, sub):
    broker.publish([outgoing(n, Q, priority=n % 10) for n in range(30)])
    broker.publish([outgoing(n, Q, delay=60.0) for n in range(30)])
    sub.settle([(take(sub, 1)[0].lease, DeadLetter("x"))])
    take(sub, 5)
    assert broker.purge(Q, Part.WAITING | Part.DELAYED | Part.LEASED | Part.DEAD) == 60
    assert not client.keys("*")


def test_full_server_is_an_outage_and_stores_nothing(own_redis):
    server = own_redis(config={"maxmemory": "1", "maxmemory-policy": "noeviction"})
    with pytest.raises(Unavailable, match="OOM"):
        RedisAckBroker(server.url).publish([outgoing(1, Q)])


def test_check_says_what_is_wrong(own_redis):
    server = own_redis(password="right")
    RedisAckBroker(server.url).check()
    with pytest.raises(ServerRefused, match="password"):
        RedisAckBroker(f"redis://:wrong@127.0.0.1:{server.port}/0").check()
    with pytest.raises(Unavailable):
        RedisAckBroker(f"redis://127.0.0.1:{free_port()}/0").check()


@pytest.mark.parametrize("kind", ["redis", "redis_ack", "redis_stream", "redis_brpoplpush"])
def test_replay_of_all_takes_those_that_were_dead_when_it_began(redis_url, kind):
    """A worker that rejects them again at once does not keep it going."""
    broker = brokers.load(kind)(redis_url)
    broker.publish([outgoing(n) for n in range(3)])
    sub = broker.subscribe(QUEUE, lease=30.0)

    def bury():
        found = sub.fetch(10, MB)
        sub.settle([(delivery.lease, DeadLetter("no")) for delivery in found])
        return len(found)

    def again(body, headers):
        broker.publish([outgoing(9)])
        bury()
        return body

    assert bury() == 3
    assert broker.replay(QUEUE, None, again) == 3
    assert bury() == 3
    sub.close()
    broker.close()
