"""REDIS_STREAM against the conformance suite, and what only streams do."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis
from helpers import until
from redis_leases import BODY, Q, RedisLeases, blocked, ended, settled, take

from fsdf_engine.brokers.redis_stream import RedisStreamBroker
from fsdf_engine.contracts import Broker
from fsdf_engine.outcomes import DeadLetter, Release
from fsdf_engine.testing.brokers import MB, BrokerConformance, outgoing

GROUP = "fsdf"


class TestRedisStream(BrokerConformance):
    @pytest.fixture
    def broker(self, redis_url: str) -> RedisStreamBroker:
        return RedisStreamBroker(redis_url)

    def spoil(self, broker: Broker, queue: str) -> int:
        side = f"{{{queue}}}:"
        with redis.Redis.from_url(broker.url) as client:
            entries = (
                {"body": "1"}, {"body": b"\xff"}, {"a": b"\xff", "b": b"\xfe"}, {"": ""},
                {"body": "2", "fsdf": "mine"}, {"a": "3", "fsdf": "\n::"},
                {"body": "4", "fsdf": ""},
                {"body": "5", "fsdf": b"\xff:0:0:"}, {"body": "6", "fsdf": ":0:0:junk"},
                {"body": "7", "fsdf": "a b:0:0:{}"}, {"body": "8", "fsdf": "a:99999999999:0:"},
                {"body": "9", "fsdf": "a-9:0:0:[1]"},
            )  # fmt: skip
            for priority, stream in {0: queue, 4: side + "s:4", -3: side + "s:-3"}.items():
                ids = [client.xadd(stream, entry) for entry in entries]
                marks = {f"{priority}/{id.decode()}": "junk \n" for id in ids[::2]}
                client.hset(side + "states", mapping=marks)
            due = (
                b'{"z":1}', b"~", b"~x:0:x:\n{}", b"b-1:0:0:junk\n{}", b"\xff", b"a:0:4:\n10",
                b"a:0:-3:\n11", b"a:0:-4:\n12", b"a:0:-0:\n13",
            )  # fmt: skip
            for part in ("", "below:"):
                client.zadd(f"{side}{part}delayed", dict.fromkeys(due, 1.0))
                owners = {"junk": 1.0, b"\xff": 1.0, "1.2.3": 1.0, "": 1.0}
                client.zadd(f"{side}{part}owners", owners)
        return 3 * len(entries) + 2 * len(due)


def names(client) -> set[str]:
    """Return the consumers of the group, without the one that is only a parking place."""
    return {c["name"].decode() for c in client.xinfo_consumers(Q, GROUP)} - {"released"}


class TestStreamLeases(RedisLeases):
    @pytest.fixture
    def make(self) -> Callable[[str], RedisStreamBroker]:
        return RedisStreamBroker

    def test_foreign_entry_wakes_a_waiter_and_is_taken_in_order(self, client, sub):
        assert not sub.fetch(10, MB)
        thread = blocked(sub, client)
        ids = [client.xadd(Q, {"any name": b'{"n":0}'}), client.xadd(Q, {"x": b'{"n":1}'})]
        assert ended(thread)
        found = take(sub, 2)
        assert [d.body for d in found] == [b'{"n":0}', b'{"n":1}']
        assert [d.id for d in found] == [f"q:0/{id.decode()}" for id in ids]

    def test_entries_from_before_the_group_are_taken(self, client, sub):
        client.xadd(Q, {"body": BODY})
        client.xgroup_create(Q, "another program", "0")
        client.xadd(Q, {"body": BODY})
        one, two = take(sub, 2)
        assert one.body == two.body == BODY
        assert one.id != two.id
        settled(sub, [one])
        assert client.xlen(Q) == 1

    def test_foreign_entry_of_several_fields_keeps_all_of_them(self, client, sub):
        client.xadd(Q, {"a": "3", "b": "6"})
        client.xadd(Q, {"kind": "x", "body": BODY})
        odd, fine = take(sub, 2)
        assert json.loads(odd.body) == ["a", "3", "b", "6"]
        assert fine.body == BODY

    def test_settled_entry_is_deleted_so_that_the_length_is_true(self, broker, client, sub):
        broker.publish([outgoing(n, Q) for n in range(5)])
        assert client.xlen(Q) == 5
        found = take(sub, 5)
        sub.settle([(found[0].lease, Release(60.0)), (found[1].lease, DeadLetter("bad"))])
        settled(sub, found[2:4])
        assert client.xlen(Q) == 1
        assert client.xpending(Q, GROUP)["pending"] == 1

    def test_consumer_that_died_is_removed_when_its_leases_are_taken(self, broker, client, sub):
        dead = broker.subscribe(Q, lease=0.2)
        broker.publish([outgoing(1, Q)])
        [d] = take(dead, 1)
        [gone] = names(client)
        [again] = take(sub, 1)
        assert again.id == d.id
        assert gone not in names(client)
        settled(sub, [again])
        assert not names(client)

    def test_consumer_without_leases_does_not_exist(self, broker, client, sub):
        broker.publish([outgoing(n, Q, priority=n) for n in range(3)])
        found = take(sub, 3)
        assert len(names(client)) == 1
        settled(sub, found)
        assert not names(client)
        assert not sub.fetch(1, MB)
        assert not names(client)
        assert not client.exists("{q}:owners", "{q}:states")

    def test_side_keys_of_a_message_end_with_it(self, broker, client, sub):
        short = broker.subscribe(Q, lease=0.05)
        broker.publish([outgoing(1, Q), outgoing(2, Q)])
        one, two = take(short, 2)
        one, two = take(sub, 2)
        assert client.hlen("{q}:states") == 2
        sub.settle([(one.lease, Release(0.0, {"a": 1})), (two.lease, DeadLetter("bad"))])
        settled(sub, take(sub, 1))
        assert not client.exists("{q}:states", "{q}:owners", "{q}:delayed")
        short.close()

    def test_entry_that_somebody_deleted_is_forgotten(self, broker, client, sub):
        broker.publish([outgoing(n, Q) for n in range(3)])
        one, two, three = take(sub, 3)
        client.xdel(Q, *(d.id.partition("/")[2] for d in (one, two, three)))
        sub.settle([(one.lease, Release())])
        sub.settle([(two.lease, Release(60.0)), (three.lease, DeadLetter("bad"))])
        assert not sub.fetch(5, MB)
        assert broker.size(Q) == (0, 0, 0, 0)
        assert client.xpending(Q, GROUP)["pending"] == 0

    def test_extend_renews_what_it_names_only(self, broker, sub):
        short = broker.subscribe(Q, lease=0.6)
        broker.publish([outgoing(n, Q) for n in range(2)])
        kept, left = take(short, 2)
        found = []

        def other_is_back() -> bool:
            assert list(short.extend([kept.lease])) == [kept.lease]
            found.extend(sub.fetch(5, MB))
            return bool(found)

        until(other_is_back)
        assert [d.id for d in found] == [left.id]
        settled(short, [kept])
        short.close()

    def test_wake_leaves_no_key_behind_for_long(self, broker, client, sub):
        assert not sub.fetch(1, MB)
        thread = blocked(sub, client)
        sub.wake()
        assert ended(thread)
        [bell] = client.keys("*bell*")
        assert 0 < client.ttl(bell) <= 60
