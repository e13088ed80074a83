"""Round trips for 1,000 messages: counted, so that no clock decides."""

from __future__ import annotations

import pytest
from helpers import BOUND

from fsdf_engine import default_engine, task_deco
from fsdf_engine.contracts import Subscription

BUDGET = {  # calls of fetch, wait, fetch_next and settle, for 1,000 no-op messages and 50 slots
    "memory": 100,
    "sqlite": 100,
    "redis": 100,
    "redis_ack": 100,
    "redis_stream": 100,
    "redis_brpoplpush": 100,
}


@pytest.fixture(params=list(BUDGET))
def broker(request, monkeypatch):
    if request.param.startswith("redis"):
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    return request.param


class Counting:
    """Counts the calls of some methods of a subscription."""

    def __init__(self, subscription):
        self.calls = dict.fromkeys(("fetch", "settle", "wait", "extend", "fetch_next"), 0)
        self.only_waits = type(subscription).fetch_next is Subscription.fetch_next
        for name in list(self.calls)[: -1 if self.only_waits else None]:
            setattr(subscription, name, self._counted(name, getattr(subscription, name)))

    def _counted(self, name, method):
        def call(*args):
            self.calls[name] += 1
            return method(*args)

        return call


@pytest.fixture
def counted(broker, monkeypatch):
    found = []
    cls = type(default_engine().broker(broker))
    subscribe = cls.subscribe

    def counting(self, queue, *, lease):
        subscription = subscribe(self, queue, lease=lease)
        try:
            found.append(Counting(subscription))
        except AttributeError:
            pytest.fail(f"{type(subscription).__name__} has slots: count on its class")
        return subscription

    monkeypatch.setattr(cls, "subscribe", counting)
    return found


def test_a_thousand_messages_stay_within_the_budget(broker, counted):
    @task_deco("budget", broker_kind=broker)
    def noop(n):
        pass

    noop.push_many((n,) for n in range(1000))
    noop.consume()
    assert noop.join(BOUND)
    [counting] = counted
    default_engine().stop()
    calls = counting.calls
    assert calls.pop("extend") == 0
    assert sum(calls.values()) <= BUDGET[broker], calls


def test_a_message_that_comes_alone_costs_one_wait_and_one_fetch(broker, counted):
    # Some do not tell that a fetch has left nothing, so another one asks.
    most = 25 if broker in ("sqlite", "redis") else 45

    @task_deco("alone", broker_kind=broker, is_using_rpc_mode=True)
    def echo(n):
        return n

    echo.consume()
    for n in range(20):
        assert echo.push(n).get(BOUND) == n
    [counting] = counted
    default_engine().stop()
    if not counting.only_waits:
        assert counting.calls["fetch"] <= 5, counting.calls
        assert counting.calls["wait"] == 0, counting.calls
        assert counting.calls["fetch_next"] <= 25, counting.calls
        return
    assert counting.calls["fetch"] <= most, counting.calls
    assert counting.calls["wait"] <= 25, counting.calls


def test_push_many_sends_five_hundred_at_a_time(broker, monkeypatch):
    @task_deco("budget", broker_kind=broker)
    def noop(n):
        pass

    cls, batches = type(default_engine().broker(broker)), []
    publish = cls.publish

    def counting(self, batch):
        batches.append(len(batch))
        return publish(self, batch)

    monkeypatch.setattr(cls, "publish", counting)
    noop.push_many((n,) for n in range(1200))
    assert batches == [500, 500, 200]
