"""REDIS_ACK_ABLE while its server goes away and comes back."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest
import redis
from helpers import BOUND, until
from redis_leases import Q, patiently, take

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.contracts import Outgoing
from fsdf_engine.errors import PublishError, Unavailable
from fsdf_engine.outcomes import ACK, Release
from fsdf_engine.testing.brokers import MB, outgoing


def test_publish_to_a_stopped_server_is_unavailable_or_unknown_and_then_works(own_redis):
    server = own_redis(aof=True)
    broker = RedisAckBroker(server.url)
    broker.publish([outgoing(1, Q)])
    server.kill()
    with pytest.raises((Unavailable, PublishError)) as caught:
        broker.publish([outgoing(2, Q)])
    assert not isinstance(caught.value, PublishError) or len(caught.value.unknown) == 1
    with pytest.raises(Unavailable):
        broker.publish([outgoing(3, Q)])
    server.start()
    patiently(broker.publish, [outgoing(4, Q)])
    assert broker.size(Q) == (2, 0, 0, 0)
    broker.close()


def test_new_leases_of_a_young_server_are_reaped_without_a_grace(own_redis):
    server = own_redis()
    broker = RedisAckBroker(server.url)
    until(lambda: redis.Redis.from_url(server.url).info("server")["uptime_in_seconds"] >= 1)
    owner, other = broker.subscribe(Q, lease=0.05), broker.subscribe(Q, lease=600.0)
    broker.publish([outgoing(1, Q)])
    take(owner, 1)
    assert take(other, 1)[0].deliveries == 1
    for each in (owner, other, broker):
        each.close()


def test_subscription_that_was_cut_off_longer_than_the_lease_holds_its_reaping(
    own_redis, monkeypatch
):
    for module in ("redis_connection", "redis_route"):
        monkeypatch.setattr(f"fsdf_engine.brokers.{module}.TIMEOUT", 0.2)
    server = own_redis()
    with redis.Redis.from_url(server.url) as admin:  # else it would count as just restarted
        until(lambda: admin.info("server")["uptime_in_seconds"] >= 2)
    broker = RedisAckBroker(server.url)
    sub = broker.subscribe(Q, lease=0.3)
    broker.publish([outgoing(1, Q)])
    [d] = take(sub, 1)
    server.process.send_signal(signal.SIGSTOP)  # it has not restarted: its uptime tells nothing
    outage = time.monotonic()
    while time.monotonic() < outage + 0.5:
        with pytest.raises(Unavailable):
            sub.fetch(1, MB)
    server.process.send_signal(signal.SIGCONT)
    # nor did the fetches reap that were stuck in the server's socket
    assert not patiently(sub.fetch, 1, MB)
    assert list(sub.extend([d.lease])) == [d.lease]
    assert take(sub, 1)[0].deliveries == 1
    for each in (sub, broker):
        each.close()


def publish_at_random(broker: RedisAckBroker, seed: int, stored: set[bytes]) -> None:
    """Publish some 1,000 messages; remember those that the broker confirmed."""
    chance = random.Random(seed)
    for n in range(100):
        batch = [
            Outgoing(Q, "", b"%d-%d-%d" % (seed, n, k), priority=k % 3, delay=k % 4 * 0.01)
            for k in range(chance.randint(1, 20))
        ]
        try:
            broker.publish(batch)
            stored.update(item.body for item in batch)
        except PublishError as error:
            assert len(error.unknown) == len(batch)
        except Unavailable:
            pass


def consume_at_random(
    broker: RedisAckBroker, seed: int, seen: set[bytes], stop: threading.Event
) -> None:
    """Settle what comes; put some back, and forget some."""
    chance, sub = random.Random(seed), broker.subscribe(Q, lease=1.0)
    while not stop.is_set():
        try:
            found = sub.fetch(chance.randint(1, 150), MB)
            if not found:
                sub.wait(1.0)
            seen.update(d.body for d in found)
            pairs = [(d.lease, chance.choice([ACK, ACK, Release(0.01)])) for d in found]
            sub.settle(pairs[: -1 if chance.random() < 0.1 else None])
        except Unavailable:
            pass
    sub.close()


def cut_at_random(admin: redis.Redis, stop: threading.Event) -> None:
    """Kill connections other than our own."""
    chance, mine = random.Random(0), admin.client_id()
    while not stop.wait(chance.random() * 0.05):
        ids = [client["id"] for client in admin.client_list() if client["id"] != str(mine)]
        if ids:
            admin.client_kill_filter(_id=chance.choice(ids))


def test_connections_cut_at_random_under_load_lose_nothing(own_redis):
    server, stop = own_redis(), threading.Event()
    broker, admin = RedisAckBroker(server.url), redis.Redis.from_url(server.url)
    stored: set[bytes] = set()
    seen: set[bytes] = set()
    work = [(publish_at_random, (broker, seed, stored)) for seed in (1, 2)]
    work += [(consume_at_random, (broker, seed, seen, stop)) for seed in (3, 4, 5)]
    work += [(cut_at_random, (admin, stop))]
    threads = [threading.Thread(target=target, args=args) for target, args in work]
    for thread in threads:
        thread.start()
    for thread in threads[:2]:
        thread.join()
    try:
        until(lambda: sum(patiently(broker.size, Q)) == 0)
    finally:
        stop.set()
        for thread in threads:
            thread.join(BOUND)
    assert len(stored) > 500
    assert stored <= seen
    broker.close()
