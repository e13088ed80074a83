"""What every confirming Redis broker stands: foreign producers, late owners, lost servers.

Subclass `RedisLeases` and give a `make` fixture: URL -> broker.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from helpers import BOUND, until

from fsdf_engine.contracts import Broker, Delivery, Letter, Outgoing, Part, Subscription
from fsdf_engine.errors import ConfigurationError, PublishError, ServerRefused, Unavailable
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.testing.brokers import MB, fetch_some, outgoing

BODY = b'{"a":3,"b":6}'
EVERYTHING = Part.WAITING | Part.DELAYED | Part.LEASED | Part.DEAD
Q = "q"
Make = Callable[[str], Broker]


def spoil_lists(url: str, queue: str) -> int:
    """Write by hand into the keys of a list broker's queue; return how many messages that makes."""
    with redis.Redis.from_url(url) as client:
        side = f"{{{queue}}}:"
        client.lpush(queue, b"", b"\xff\xfe", b"123", b"[1]")
        entries = (
            b'{"x":1}', b"\xff", b":0:9:", b"a b:0:3:\n{}", b":99999999999:3:\n{}",
            b"\xff:0:3:\n{}", b":0:77:\n{}", b"~x:0:3:\n{}", b'a-1:0:3:junk\n{"s":1}',
            b'a-2:0:3:[1]\n{"s":2}', b'a-3:0:3:{"attempt":"x"}\n{"s":3}', b'a-4:0:3:\xff\n{"s":4}',
            b":0:-3:\n{}", b":0:-4:\n{}", b":0:-0:\n{}", b":0:--:\n{}",
        )  # fmt: skip
        for line in ("p:3", "again", "p:-6"):
            client.lpush(side + line, *[entry.replace(b"}", line.encode()) for entry in entries])
        due = (b'{"z":1}', b"~", b"~~:0:0:\n{}", b"~x:0:x:\n{}", b'b-1:0:0:junk\n{"s":5}', b"\xff")
        for delayed in ("delayed", "below:delayed"):
            client.zadd(side + delayed, dict.fromkeys(due, 1.0))
        for leases in ("leases", "claims", "below:leases", "below:claims"):
            others = (
                b"junk",
                b"\xff",
                queue,
                *[side + key for key in ("again", "b:", "o:", "o:1")],
            )
            client.zadd(side + leases, dict.fromkeys(others, time.time() - 0.1))
        client.set(side + "o:1", "x")
        client.set(side + "b:1", "x")
        client.sadd(side + "waiters", "nobody", b"\xff", "99999999999999999999")
    return 4 + 3 * len(entries) + 2 * len(due)


def take(sub: Subscription, count: int) -> list[Delivery]:
    """Fetch so many."""
    found: list[Delivery] = []
    while len(found) < count:
        found += fetch_some(sub, count - len(found))
    return found


def settled(sub: Subscription, found: list[Delivery]) -> None:
    """Acknowledge all; every lease must be ours."""
    assert not sub.settle([(d.lease, ACK) for d in found])


def patiently(call, *args, **options):  # type: ignore[no-untyped-def]
    """Repeat a call until the server is back."""
    result: list[object] = []

    def works() -> bool:
        try:
            result.append(call(*args, **options))
        except Unavailable:
            return False
        return True

    until(works)
    return result[-1]


def blocked(sub: Subscription, client: redis.Redis) -> threading.Thread:
    """Return a thread that is inside `sub.wait`."""
    before = client.info("clients")["blocked_clients"]
    thread = threading.Thread(target=sub.wait, args=(BOUND,))
    thread.start()
    until(lambda: client.info("clients")["blocked_clients"] > before)
    return thread


def ended(thread: threading.Thread) -> bool:
    """Say whether it ends long before its own limit."""
    thread.join(BOUND / 2)
    return not thread.is_alive()


def expired_during_outage(make: Make, server, lease: float):  # type: ignore[no-untyped-def]
    """Lease two messages, then keep the server away until their leases have ended."""
    owner = make(server.url).subscribe(Q, lease=lease)
    redis.Redis.from_url(server.url).config_set("appendfsync", "always")
    make(server.url).publish([outgoing(n, Q) for n in range(2)])
    found = take(owner, 2)
    leased_at = time.time()
    server.kill()
    until(lambda: time.time() > leased_at + lease + 1.0)  # its uptime counts in whole seconds
    server.start()
    return owner, found


class RedisLeases:
    """Every test must pass unchanged."""

    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[redis.Redis]:
        """Another program."""
        with redis.Redis.from_url(redis_url) as client:
            yield client

    @pytest.fixture
    def broker(self, make: Make, redis_url: str) -> Iterator[Broker]:
        broker = make(redis_url)
        yield broker
        broker.close()

    @pytest.fixture
    def sub(self, broker: Broker) -> Iterator[Subscription]:
        sub = broker.subscribe(Q, lease=30.0)
        yield sub
        sub.close()

    def test_stale_token_changes_nothing_once_the_message_is_retaken(self, broker, sub):
        """By the same subscription too, and whatever became of the lease in between."""
        short = broker.subscribe(Q, lease=0.05)
        broker.publish([outgoing(n, Q) for n in range(3)])
        first = take(short, 3)
        second = take(short, 3)
        assert [(d.id, d.deliveries) for d in second] == [(d.id, 1) for d in first]
        for verdict in (ACK, Release(), Release(60.0), DeadLetter("late")):
            stale = [(d.lease, verdict) for d in first]
            assert set(short.settle(stale)) == {d.lease for d in first}
        assert not short.extend([d.lease for d in first])
        assert broker.size(Q).dead == broker.size(Q).delayed == 0
        third = take(sub, 3)
        assert set(short.settle([(d.lease, ACK) for d in second])) == {d.lease for d in second}
        assert broker.size(Q) == (0, 0, 3, 0)
        settled(sub, third)
        assert broker.size(Q) == (0, 0, 0, 0)
        short.close()

    def test_released_message_cannot_be_acknowledged_by_its_former_lease(self, broker, sub):
        broker.publish([outgoing(1, Q), outgoing(2, Q)])
        d, beside = take(sub, 2)
        assert not sub.settle([(d.lease, Release())])
        assert list(sub.settle([(d.lease, ACK)])) == [d.lease]
        [again] = take(sub, 1)
        for verdict in (ACK, Release(), Release(60.0), DeadLetter("late")):
            assert list(sub.settle([(d.lease, verdict)])) == [d.lease]
        assert broker.size(Q) == (0, 0, 2, 0)
        settled(sub, [again, beside])

    def test_late_acknowledgement_beside_good_ones_is_named_alone(self, broker, sub):
        other = broker.subscribe(Q, lease=30.0)
        broker.publish([outgoing(1, Q)])
        [lost] = take(sub, 1)
        sub.settle([(lost.lease, Release())])
        [retaken] = take(other, 1)
        broker.publish([outgoing(n, Q) for n in range(2, 6)])
        good = take(sub, 4)
        batch = [(d.lease, ACK) for d in (*good[:2], lost, *good[2:])]
        assert list(sub.settle(batch)) == [lost.lease]
        assert broker.size(Q) == (0, 0, 1, 0)
        settled(other, [retaken])
        other.close()

    def test_second_settle_of_one_batch_harms_nobody(self, broker, sub):
        broker.publish([outgoing(n, Q) for n in range(3)])
        found = take(sub, 3)
        settled(sub, found[:2])
        assert found[2].lease not in sub.settle([(d.lease, ACK) for d in found])
        assert broker.size(Q) == (0, 0, 0, 0)

    def test_id_is_the_same_over_all_deliveries(self, broker, sub):
        broker.publish([Outgoing(Q, "", b"0"), Outgoing(Q, "", BODY)])
        zero, d = take(sub, 2)
        assert zero.id != d.id
        verdicts = (Release(), Release(0.01), Release(0.0, {"a": 3}), Release(0.01, {"x": 1}))
        for verdict in verdicts:
            sub.settle([(d.lease, verdict)])
            [again] = take(sub, 1)
            assert (again.id, again.state, again.deliveries) == (d.id, verdict.state, 0)
            d = again
        sub.settle([(d.lease, DeadLetter("bad"))])
        assert broker.dead_letters(Q)[0].body == BODY

    def test_state_and_count_survive_a_lost_lease(self, broker, sub):
        short = broker.subscribe(Q, lease=0.05)
        broker.publish([outgoing(1, Q)])
        for verdict in (Release(0.0, {"n": 1}), Release(0.01, {"n": 2})):
            [d] = take(sub, 1)
            sub.settle([(d.lease, verdict)])
            lost = take(short, 1)[0]
            [d] = take(sub, 1)
            assert (d.id, d.state) == (lost.id, verdict.state)
            assert d.deliveries == lost.deliveries + 1
            sub.settle([(d.lease, Release(0.0, d.state))])
        assert take(sub, 1)[0].deliveries == 2
        short.close()

    def test_priority_survives_a_lost_lease_and_a_release(self, broker, sub):
        short = broker.subscribe(Q, lease=0.1)
        broker.publish([outgoing(1, Q, priority=7), outgoing(2, Q, priority=3)])
        first = {d.body: d.id for d in take(short, 2)}
        found = take(sub, 2)
        assert [(d.body, d.id, d.deliveries) for d in found] == [(b, first[b], 1) for b in first]
        sub.settle([(found[0].lease, Release()), (found[1].lease, Release(0.01, {"a": 1}))])
        broker.publish([outgoing(9, Q, priority=9), outgoing(5, Q, priority=5)])
        until(lambda: broker.size(Q).delayed == 0)
        assert [d.body[5:-1] for d in take(sub, 4)] == [b"9", b"1", b"5", b"2"]
        short.close()

    def test_prefetch_taken_back_keeps_its_order(self, broker, sub):
        broker.publish([outgoing(n, Q) for n in range(8)])
        found = take(sub, 5)
        sub.settle([(d.lease, Release()) for d in reversed(found)])
        assert [d.body for d in take(sub, 8)] == [outgoing(n).body for n in range(8)]

    def test_wait_ends_when_a_lease_of_another_consumer_ends(self, broker, sub):
        broker.publish([outgoing(1, Q)])
        dead = broker.subscribe(Q, lease=0.4)
        [d] = take(dead, 1)
        assert not sub.fetch(1, MB)
        began = time.monotonic()
        sub.wait(BOUND)
        assert time.monotonic() - began < BOUND / 2
        assert take(sub, 1)[0].id == d.id
        dead.close()

    def test_wait_ends_for_what_came_between_fetch_and_wait(self, broker, sub):
        other = broker.subscribe(Q, lease=30.0)
        for options in ({"priority": 4}, {"not_before": 1.0}, {}):
            assert not sub.fetch(1, MB)
            broker.publish([outgoing(1, Q, **options)])
            thread = threading.Thread(target=sub.wait, args=(BOUND,))
            thread.start()
            assert ended(thread)
            settled(sub, take(sub, 1))
        assert not sub.fetch(1, MB)
        broker.publish([outgoing(1, Q)])
        [d] = take(other, 1)
        other.settle([(d.lease, Release(0.0, {"attempt": 1}))])
        thread = threading.Thread(target=sub.wait, args=(BOUND,))
        thread.start()
        assert ended(thread)
        assert take(sub, 1)[0].id == d.id
        other.close()

    def test_purge_of_everything_counts_it(self, broker, sub):
        broker.publish([outgoing(n, Q, priority=n % 10) for n in range(30)])
        broker.publish([outgoing(n, Q, delay=60.0) for n in range(30)])
        broker.publish([outgoing(n, Q, not_before=1.0) for n in range(3)])
        sub.settle([(take(sub, 1)[0].lease, DeadLetter("x"))])
        found = take(sub, 5)
        sub.settle([(found[0].lease, Release())])
        assert sum(broker.size(Q)) == 63
        assert broker.purge(Q, Part.WAITING) == 28
        assert broker.size(Q) == (0, 30, 4, 1)
        assert broker.purge(Q, EVERYTHING) == 35
        assert broker.size(Q) == (0, 0, 0, 0)
        broker.publish([outgoing(7, Q)])
        assert [d.body for d in take(sub, 1)] == [outgoing(7).body]

    def test_queue_names_may_be_strange(self, broker):
        for name in ("a b:c", "очередь", "{x}", "a{b}c", "a:b:c-1", "%d"):
            sub = broker.subscribe(name, lease=30.0)
            broker.publish([Outgoing(name, "1", BODY), Outgoing(name, "2", BODY, priority=3)])
            found = take(sub, 2)
            sub.settle([(found[0].lease, Release(0.0, {"a": 1})), (found[1].lease, ACK)])
            [again] = take(sub, 1)
            assert (again.id, again.state) == (found[0].id, {"a": 1})
            settled(sub, [again])
            assert broker.size(name) == (0, 0, 0, 0)
            sub.close()

    def test_keys_of_another_queue_cannot_be_a_queue(self, broker, sub):
        for key in {*sub._keys[1:], "{q}:b:1", "{q}:o:1", "{q}:bell:1", "{q}:claims", "fsdf:x"}:
            with pytest.raises(ConfigurationError, match="choose another name"):
                broker.valid_queue(key)

    def test_dead_letters_of_others_are_listed_and_replayed(self, broker, client):
        values = {"a": "no newline", "b": b'["r"]\n\xff', "c": b"\xff\n:0:0:\n{}", b"\xff": ""}
        client.hset("{q}:letters", mapping=values)
        client.zadd("{q}:dead", {"gone": 1, **dict.fromkeys(values, 2)})
        letters = broker.dead_letters(Q)
        assert len(letters) == 5
        assert all(type(x.reason) is type(x.trace) is str for x in letters)
        assert broker.replay(Q, ["a"]) == 1
        assert broker.replay(Q) == 3
        assert broker.size(Q) == (4, 0, 0, 0)
        assert not broker.dead_letters(Q)

    def test_equal_ids_of_others_are_two_dead_letters(self, broker, sub, client):
        broker.publish([outgoing(n, Q) for n in range(2)])
        found = take(sub, 2)
        client.hset("{q}:letters", found[0].id, '["older", ""]\n:0:0:\n{}')
        client.zadd("{q}:dead", {found[0].id: 1})
        sub.settle([(d.lease, DeadLetter("bad")) for d in found])
        assert {x.reason for x in broker.dead_letters(Q)} == {"older", "bad"}
        assert broker.size(Q).dead == 3

    def test_key_of_another_type_rejects_its_messages_only(self, broker, client):
        client.set("taken", "x")
        with pytest.raises(PublishError) as caught:
            broker.publish([outgoing(1, Q), outgoing(2, "taken"), outgoing(3, Q, delay=60.0)])
        assert [item.queue for item in caught.value.rejected] == ["taken"]
        assert not caught.value.unknown
        assert broker.size(Q) == (1, 1, 0, 0)
        with pytest.raises(ServerRefused, match="rename"):
            broker.publish([outgoing(2, "taken")])
        with pytest.raises(ServerRefused, match="rename"):
            broker.subscribe("taken", lease=30.0).fetch(1, MB)

    def test_flushed_scripts_are_loaded_again(self, broker, client, sub):
        broker.publish([outgoing(1, Q)])
        client.script_flush()
        [d] = take(sub, 1)
        client.script_flush()
        settled(sub, [d])

    def test_killed_connections_are_replaced_and_no_message_is_lost(self, make, own_redis):
        server = own_redis()
        broker = make(server.url)
        sub, other = broker.subscribe(Q, lease=30.0), broker.subscribe("other", lease=30.0)
        admin = redis.Redis.from_url(server.url)
        broker.publish([outgoing(n, Q) for n in range(50)])
        found = take(sub, 10)
        other.fetch(1, MB)
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                other.wait(BOUND)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: admin.info("clients")["blocked_clients"] == 1)
        admin.client_kill_filter(_type="normal", skipme=True)
        thread.join(BOUND)
        assert [isinstance(error, Unavailable) for error in errors] == [True]
        patiently(settled, sub, found)
        rest: list[Delivery] = []
        while len(rest) < 40:
            rest += patiently(fetch_some, sub, 40)
        settled(sub, rest)
        assert {d.body for d in (*found, *rest)} == {outgoing(n).body for n in range(50)}
        assert patiently(broker.size, Q) == (0, 0, 0, 0)
        for each in (sub, other, broker):
            each.close()

    def test_killed_and_restarted_server_loses_nothing(self, make, own_redis):
        server = own_redis(aof=True)
        broker = make(server.url)
        sub = broker.subscribe(Q, lease=30.0)
        redis.Redis.from_url(server.url).config_set("appendfsync", "always")
        broker.publish([outgoing(n, Q) for n in range(10)])
        broker.publish([outgoing(n, Q, delay=60.0) for n in range(2)])
        back, *found = take(sub, 5)
        sub.settle([(back.lease, Release(0.0, {"attempt": 1}))])
        server.kill()
        server.start()
        assert set(patiently(sub.extend, [d.lease for d in found])) == {d.lease for d in found}
        assert patiently(broker.size, Q) == (6, 2, 4, 0)
        patiently(settled, sub, found)
        first, *rest = patiently(take, sub, 6)
        assert (first.id, first.state, first.deliveries) == (back.id, {"attempt": 1}, 0)
        assert [d.body for d in rest] == [outgoing(n).body for n in range(5, 10)]
        for each in (sub, broker):
            each.close()

    def test_consumers_go_on_where_a_server_at_its_limit_refuses_publishers(self, make, own_redis):
        server = own_redis()
        broker = make(server.url)
        sub, short = broker.subscribe(Q, lease=30.0), broker.subscribe(Q, lease=0.05)
        broker.publish([outgoing(n, Q, priority=(0, 1, -3)[n % 3]) for n in range(8)])
        [orphan] = take(short, 1)
        redis.Redis.from_url(server.url).config_set("maxmemory", 1)
        with pytest.raises(Unavailable, match="OOM"):
            broker.publish([outgoing(9, Q)])
        found: list[Delivery] = []
        until(lambda: found.extend(sub.fetch(8, MB)) or len(found) == 8)
        assert orphan.id in {d.id for d in found}
        leases = [d.lease for d in found]
        assert set(sub.extend(leases)) == set(leases)
        verdicts = (Release(), Release(60.0), DeadLetter("bad"))
        for lease, verdict in zip(leases, verdicts, strict=False):
            assert not sub.settle([(lease, verdict)])
        settled(sub, found[3:4])
        settled(sub, found[4:])
        settled(sub, take(sub, 1))
        assert broker.size(Q) == (0, 1, 0, 1)
        broker.bury([Letter(Q, "early", b"{}", "bad")])
        assert broker.size(Q).dead == 2
        for each in (sub, short, broker):
            each.close()

    def test_owners_extend_first_after_an_outage_longer_than_the_lease(self, make, own_redis):
        server = own_redis(aof=True)
        owner, found = expired_during_outage(make, server, lease=0.5)
        newcomer = make(server.url).subscribe(Q, lease=6.0)
        assert not newcomer.fetch(5, MB)
        leases = [d.lease for d in found]
        assert set(patiently(owner.extend, leases)) == set(leases)
        settled(owner, found)
        newcomer.close()
        owner.close()

    def test_messages_of_an_owner_that_died_in_an_outage_come_after_the_grace(
        self, make, own_redis
    ):
        server = own_redis(aof=True)
        owner, found = expired_during_outage(make, server, lease=0.5)
        owner.close()
        newcomer = make(server.url).subscribe(Q, lease=0.6)
        assert not newcomer.fetch(5, MB)
        again = take(newcomer, 2)
        assert {(d.id, d.deliveries) for d in again} == {(d.id, 1) for d in found}
        newcomer.close()

    def test_subscription_cut_off_longer_than_the_lease_holds_its_reaping(
        self, make, own_redis, monkeypatch
    ):
        for module in ("redis_connection", "redis_route"):
            monkeypatch.setattr(f"fsdf_engine.brokers.{module}.TIMEOUT", 0.2)
        server = own_redis()
        with redis.Redis.from_url(server.url) as admin:  # else it would count as just restarted
            until(lambda: admin.info("server")["uptime_in_seconds"] >= 2)
        broker = make(server.url)
        sub = broker.subscribe(Q, lease=0.3)
        broker.publish([outgoing(1, Q)])
        take(sub, 1)
        server.process.send_signal(signal.SIGSTOP)  # no restart: its uptime tells nothing
        outage = time.monotonic()
        while time.monotonic() < outage + 0.5:
            with pytest.raises(Unavailable):
                sub.fetch(1, MB)
        server.process.send_signal(signal.SIGCONT)
        assert not patiently(sub.fetch, 1, MB)
        assert take(sub, 1)[0].deliveries == 1
        for each in (sub, broker):
            each.close()
