"""Which queues a Redis is said to hold: those of other programs, too, and nothing else."""

from __future__ import annotations

import pytest
import redis
from helpers import until

from fsdf_engine.brokers.redis_brpoplpush import RedisBrpopLpushBroker
from fsdf_engine.brokers.redis_names import PAGE
from fsdf_engine.brokers.redis_stream import RedisStreamBroker
from fsdf_engine.registry import brokers
from fsdf_engine.testing.brokers import MB, outgoing

LISTS = ["redis", "redis_ack", "redis_brpoplpush"]


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def make(redis_url):
    made = []

    def make(name):
        made.append(brokers.load(name)(redis_url))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.mark.parametrize("name", LISTS)
def test_bare_lists_of_other_programs_are_queues(client, make, name):
    client.lpush("foreign", '{"a": 3, "b": 6}')
    client.lpush("{user}:own", "{}")
    assert make(name).queues() == ["foreign", "{user}:own"]


def test_streams_of_other_programs_are_queues_until_they_are_empty(client, make):
    id = client.xadd("foreign", {"body": "{}"})
    broker = make("redis_stream")
    assert broker.queues() == ["foreign"]
    client.xdel("foreign", id)
    assert broker.queues() == []


@pytest.mark.parametrize("name", [*LISTS, "redis_stream"])
def test_keys_of_other_kinds_are_no_queues(client, make, name):
    client.set("text", "x")
    client.hset("hash", "a", "b")
    client.zadd("zset", {"a": 1})
    client.sadd("set", "a")
    client.lpush(b"\xff\xfe", "{}")
    if name == "redis_stream":
        client.lpush("list", "{}")
    else:
        client.xadd("stream", {"a": "b"})
    assert make(name).queues() == []


@pytest.mark.parametrize("name", [*LISTS, "redis_stream"])
def test_queue_that_a_worker_waits_for_holds_nothing(make, name):
    broker = make(name)
    sub = broker.subscribe("q", lease=30.0)
    assert not sub.fetch(1, MB)
    sub.wait(0.05)
    assert broker.queues() == []
    sub.close()


def test_queue_of_streams_is_not_mistaken_for_one_of_lists(make):
    streams, lists = make("redis_stream"), make("redis_ack")
    streams.publish([outgoing(1, "q"), outgoing(2, "q", delay=60.0)])
    assert (streams.queues(), lists.queues()) == (["q"], [])


def test_queues_are_found_among_many_other_keys(client, make):
    pipe = client.pipeline(transaction=False)
    for n in range(3 * PAGE):
        pipe.set(f"fsdf:result:{n}", b"0F{}")
    pipe.execute()
    client.lpush("q", "{}")
    assert make("redis_ack").queues() == ["q"]


@pytest.mark.parametrize("kind", [RedisBrpopLpushBroker, RedisStreamBroker])
def test_queues_of_a_cluster_are_those_of_all_its_nodes(own_redis, kind):
    nodes = [own_redis(config={"cluster-enabled": "yes"}) for _ in range(2)]
    clients = [redis.Redis(port=node.port) for node in nodes]
    for n, client in enumerate(clients):
        client.execute_command("CLUSTER", "ADDSLOTS", *range(8192 * n, 8192 * n + 8192))
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    for client in clients:
        until(lambda client=client: client.cluster("info")["cluster_state"] == "ok")
        until(lambda client=client: len(client.cluster("slots")) == 2)
    broker = kind(f"redis+cluster://127.0.0.1:{nodes[0].port}")
    names = sorted(f"q{n}" for n in range(20))
    broker.publish([outgoing(1, name) for name in names])
    assert all(client.dbsize() for client in clients)
    assert broker.queues() == names
    broker.close()
    for client in clients:
        client.close()
