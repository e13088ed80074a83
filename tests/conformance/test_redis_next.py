"""REDIS_ACK_ABLE: the claim that waits on the server behind the command that blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis
from helpers import BOUND, until
from redis_leases import Q, ended, settled, take

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.contracts import Outgoing, Subscription
from fsdf_engine.errors import Unavailable
from fsdf_engine.testing.brokers import MB, outgoing
from fsdf_engine.testing.deliveries import next_some

ONE = b'{"n":1}'


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
    assert not sub.fetch(10, MB)
    yield sub
    sub.close()


class Waiter:
    """A thread inside `sub.fetch_next`; `found` is what that returns or raises."""

    def __init__(self, sub: Subscription, client: redis.Redis, limit: int = 10) -> None:
        self.sub, self.limit = sub, limit
        before = client.info("clients")["blocked_clients"]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        until(lambda: client.info("clients")["blocked_clients"] > before)

    def run(self) -> None:
        try:
            self.found: object = self.sub.fetch_next(self.limit, MB, BOUND)
        except Unavailable as error:
            self.found = error

    def end(self):  # type: ignore[no-untyped-def]
        assert ended(self.thread)
        return self.found


def test_what_arrives_comes_leased_with_the_end_of_the_wait(broker, client, sub):
    waiter = Waiter(sub, client)
    client.lpush(Q, ONE)
    [d] = waiter.end()
    assert (d.body, d.deliveries, sub.emptied) == (ONE, 0, True)
    assert broker.size(Q) == (0, 0, 1, 0)
    settled(sub, [d])
    assert not client.keys("*")


def test_one_of_several_that_wait_has_it_and_the_others_wait_again(broker, client, sub):
    other = broker.subscribe(Q, lease=30.0)
    assert not other.fetch(1, MB)
    waiters = [Waiter(one, client) for one in (sub, other)]
    client.lpush(Q, ONE)
    assert sorted(len(waiter.end()) for waiter in waiters) == [0, 1]
    other.close()


@pytest.mark.parametrize("options", [{"priority": 3}, {"not_before": 1.0}], ids=["prior", "due"])
def test_what_is_not_first_in_line_waits_for_the_others(broker, client, sub, options):
    broker.publish([outgoing(1, Q), outgoing(2, Q, **options)])
    assert sub.fetch_next(10, MB, BOUND) is None
    assert [d.body for d in sub.fetch(10, MB)] == [outgoing(2).body, ONE]


def test_what_is_delayed_keeps_nothing_else_waiting(broker, client, sub):
    broker.publish([outgoing(2, Q, delay=60.0)])
    waiter = Waiter(sub, client)
    client.lpush(Q, ONE)
    assert [d.body for d in waiter.end()] == [ONE]


def test_poke_for_another_time_ends_the_wait(broker, client, sub):
    waiter = Waiter(sub, client)
    broker.publish([outgoing(1, Q, delay=0.1)])
    assert list(waiter.end()) == []
    assert next_some(sub)[0].body == ONE


def test_who_is_woken_takes_nothing(client, sub):
    waiter = Waiter(sub, client)
    sub.wake()
    assert waiter.end() is None  # else it had looked
    assert not client.exists("{q}:waiters")


def test_who_is_forgotten_takes_nothing(broker, client, sub):
    """As a wait that is woken, or one whose client went away unnoticed."""
    waiter = Waiter(sub, client)
    assert client.smembers("{q}:waiters") == {b"%d" % sub._fetching.id}
    client.delete("{q}:waiters")
    client.lpush(Q, ONE)
    assert waiter.end() is None
    assert broker.size(Q) == (1, 0, 0, 0)
    assert len(take(sub, 1)) == 1


def test_whose_time_is_over_takes_nothing(broker, client, sub):
    sub._fetching.clock -= 2 * BOUND  # so the end of the wait seems to have passed
    waiter = Waiter(sub, client)
    client.lpush(Q, ONE)
    assert waiter.end() is None
    assert broker.size(Q) == (1, 0, 0, 0)


def test_so_late_an_answer_is_none_and_what_it_brought_comes_again_uncounted(broker, client, sub):
    waiter = Waiter(sub, client)
    sub._fetching.clock += 11.0  # more than a third of the lease
    client.lpush(Q, ONE)
    assert waiter.end() is None
    assert broker.size(Q) == (0, 0, 1, 0)
    [d] = take(sub, 1)
    assert (d.body, d.deliveries) == (ONE, 0)
    settled(sub, [d])
    assert broker.size(Q) == (0, 0, 0, 0)


def test_claim_whose_answer_was_lost_comes_at_once_and_is_not_counted(
    broker, client, sub, monkeypatch
):
    def lose(*_: object) -> float:
        client.lpush(Q, ONE)
        until(lambda: client.zcard("{q}:leases") == 1)
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(sub._fetching, "_receive", lose)
        with pytest.raises(Unavailable):
            sub.fetch_next(10, MB, BOUND)
    [d] = take(sub, 1)
    assert (d.body, d.deliveries) == (ONE, 0)
    settled(sub, [d])
    assert broker.size(Q) == (0, 0, 0, 0)


def test_claim_of_a_wait_that_nobody_could_end_comes_at_once(broker, client, sub, monkeypatch):
    def fail() -> None:
        client.lpush(Q, ONE)
        until(lambda: client.zcard("{q}:leases") == 1)
        raise Unavailable("no further connection")

    with monkeypatch.context() as patch:
        patch.setattr(sub, "_unblock", fail)
        with pytest.raises(Unavailable, match="no further"):
            sub.fetch_next(10, MB, 0.05)
    [d] = take(sub, 1)
    assert (d.body, d.deliveries) == (ONE, 0)


def test_after_a_lost_answer_nothing_waits_under_the_former_name(client, sub, monkeypatch):
    """The server may not know that the connection is gone: what it executes then is void."""
    with monkeypatch.context() as patch:

        def lose(*_: object) -> float:
            raise ConnectionResetError

        patch.setattr(sub._fetching, "_receive", lose)
        with pytest.raises(Unavailable):
            sub.fetch_next(10, MB, BOUND)
    client.sadd("{q}:waiters", sub._waiter)
    assert not sub.fetch(10, MB)
    assert not client.exists("{q}:waiters")


def test_cut_connection_ends_the_wait_and_takes_nothing(broker, client, sub):
    waiter = Waiter(sub, client)
    client.client_kill_filter(_id=str(sub._fetching.id))
    assert isinstance(waiter.end(), Unavailable)
    client.lpush(Q, ONE)
    assert broker.size(Q) == (1, 0, 0, 0)
    assert [(d.body, d.deliveries) for d in take(sub, 1)] == [(ONE, 0)]


def test_scripts_that_are_forgotten_while_it_waits_are_sent_again(client, sub):
    waiter = Waiter(sub, client)
    client.script_flush()
    client.lpush(Q, ONE)
    assert [d.body for d in waiter.end()] == [ONE]
    client.script_flush()
    client.lpush(Q, ONE)
    assert [d.body for d in next_some(sub)] == [ONE]


def test_ended_leases_are_left_to_a_fetch_that_follows(broker, client, sub):
    other = broker.subscribe(Q, lease=0.05)
    client.lpush(Q, ONE)
    take(other, 1)
    [(_, end)] = client.zrange("{q}:leases", 0, -1, withscores=True)
    until(lambda: time.time() > end)
    client.lpush(Q, b"{}")
    [d] = sub.fetch_next(10, MB, BOUND)
    assert (d.body, sub.emptied) == (b"{}", False)
    assert [(d.body, d.deliveries) for d in sub.fetch(10, MB)] == [(ONE, 1)]
    other.close()


def test_no_more_than_a_batch_is_claimed_and_the_rest_is_not_forgotten(broker, client, sub):
    broker.publish([outgoing(n, Q) for n in range(140)])
    found = list(sub.fetch_next(500, MB, BOUND))
    assert (len(found), sub.emptied) == (8, False)  # it has not seen how large they are
    found += sub.fetch_next(500, MB, BOUND)
    assert (len(found), sub.emptied) == (128, False)
    found += sub.fetch_next(500, MB, BOUND)
    assert sub.emptied
    assert [d.body for d in found] == [outgoing(n).body for n in range(140)]
    settled(sub, found)
    assert not client.keys("*")


def test_bytes_are_kept_and_what_exceeds_them_stays_in_its_order(broker, sub):
    bodies = [bytes([65 + n]) * 200_000 for n in range(8)]
    broker.publish([Outgoing(Q, "", body) for body in bodies])
    found = list(sub.fetch_next(10, MB, BOUND))
    assert (len(found), sub.emptied) == (6, False)
    assert broker.size(Q) == (2, 0, 6, 0)
    found += sub.fetch(10, MB)
    assert [d.body for d in found] == bodies


def test_full_server_hands_out_what_it_has_before_it_is_an_outage(own_redis):
    """It refuses the wait; the claim behind that has been executed all the same."""
    server = own_redis(config={"maxmemory-policy": "noeviction"})
    broker = RedisAckBroker(server.url)
    sub = broker.subscribe(Q, lease=30.0)
    broker.publish([outgoing(1, Q)])
    assert sub.fetch(0, MB) == []
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory", "1")
    assert [d.body for d in sub.fetch_next(10, MB, BOUND)] == [ONE]
    with pytest.raises(Unavailable, match="OOM"):
        sub.fetch_next(10, MB, BOUND)
    for each in (sub, broker):
        each.close()
