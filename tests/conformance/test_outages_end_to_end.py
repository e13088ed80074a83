"""Tasks while their Redis is away, or the network to it stands still."""

from __future__ import annotations

import threading

import pytest
import redis
from chaos.proxy import Proxy
from helpers import BOUND, until

from fsdf_engine import current
from fsdf_engine.core.outbox import TRIES
from fsdf_engine.engine import Engine
from fsdf_engine.errors import Unavailable


@pytest.fixture
def engine():
    """Make engines, as other processes would have them; all are closed."""
    made: list[Engine] = []

    def make() -> Engine:
        made.append(Engine())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def cluster(own_redis):
    """A cluster of one node, which keeps what it has over a restart."""
    server = own_redis(aof=True, config={"cluster-enabled": "yes", "appendfsync": "always"})
    with redis.Redis(port=server.port) as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: b"cluster_state:ok" in admin.execute_command("CLUSTER", "INFO"))
    return server


def test_runs_that_end_while_a_cluster_is_away_are_no_dead_letters(cluster, engine):
    go, runs = threading.Event(), []

    def work(n):
        runs.append(n)
        go.wait(BOUND)
        return n

    url = f"redis+cluster://127.0.0.1:{cluster.port}"
    task = engine().task(
        work, "away", broker_kind="redis_ack", broker_url=url, is_using_rpc_mode=True,
        concurrent_num=10,
    )  # fmt: skip
    results = [task.push(n) for n in range(10)]
    consumer = task.consume()
    until(lambda: len(runs) == 10)
    cluster.kill()

    def is_away() -> bool:
        with pytest.raises(Exception) as caught:  # noqa: PT011  the first may be unknown
            task.push(99)
        return type(caught.value) is Unavailable

    until(is_away)
    outbox = consumer.consumer.outbox
    before = outbox.flushes
    go.set()
    until(lambda: outbox.flushes > before + TRIES)  # an effect at fault would be given up by now
    cluster.start()
    assert [result.get(BOUND) for result in results] == list(range(10))
    assert task.join(BOUND)
    assert sorted(runs) == list(range(10))
    assert tuple(task.size()) == (0, 0, 0, 0)


def test_a_push_that_comes_after_its_lease_has_the_id_of_its_repeat(own_redis, engine):
    """The network held it back. The server takes it; its task can tell, by the id."""
    server, ids, log = own_redis(), [], []
    proxy = Proxy(server.port)

    def declared(port, work):
        own, url = engine(), f"redis://127.0.0.1:{port}/0"
        options = {"broker_kind": "redis_ack", "broker_url": url, "lease": 1.5}
        second = own.task(lambda n: ids.append(current.task_id), "second", **options)
        return own.task(lambda n: work(second, n), "first", **options), second

    def cut_off(second, n):
        if not log:
            log.append(n)
            proxy.stall()
        second.push(n)

    first, _ = declared(proxy.port, cut_off)
    again, second = declared(server.port, lambda second, n: second.push(n))
    try:
        first.push(1)
        consumer = first.consume()
        until(lambda: log)
        other = again.consume()
        until(lambda: second.size().waiting)  # the repeat's
        proxy.flow()
        until(lambda: second.size().waiting > 1)
        second.consume()
        until(lambda: len(ids) > 1)
        assert len(set(ids)) == 1
        until(lambda: not any(again.size()) and not any(second.size()))
        for each in (consumer, other):
            each.stop()
    finally:
        proxy.flow()
        proxy.close()


@pytest.mark.parametrize("broker", ["redis_ack", "redis_stream", "redis_brpoplpush"])
def test_what_is_acknowledged_without_an_answer_runs_once(own_redis, engine, broker, caplog):
    """The connection is cut after the bytes left: the server has done what it was asked for."""
    server = own_redis()
    proxy, runs = Proxy(server.port), []
    task, sender = (
        engine().task(
            lambda n: runs.append(n), "early", broker_kind=broker, ack="early", concurrent_num=10,
            broker_url=f"redis://127.0.0.1:{port}/0",
        )
        for port in (proxy.port, server.port)  # no answer to who sends is lost
    )  # fmt: skip
    try:
        handle = task.consume()
        subscription, calls = handle.consumer.subscription, []
        settle = subscription.settle

        def cut(batch):
            calls.append(len(batch))
            proxy.deaf = int(len(calls) == 1)
            return settle(batch)

        sender.push(10)
        until(lambda: runs)  # the connection is there
        subscription.settle = cut
        sender.push_many((n,) for n in range(10))
        until(lambda: len(runs) == 11)
        assert task.join(BOUND)
        assert sorted(runs) == list(range(11))
        assert calls[0] == calls[1]
        assert any("without an answer" in record.msg for record in caplog.records)
        handle.stop()
    finally:
        proxy.close()
