"""What is delayed on RabbitMQ: its way through the rungs, whoever has made them."""

from __future__ import annotations

import time
from urllib.parse import quote, urlsplit

import pika
import pytest
from helpers import until

from fsdf_engine.brokers import rabbitmq_buffer, rabbitmq_rungs, rabbitmq_subscription
from fsdf_engine.brokers.amqp_client import Publishing
from fsdf_engine.brokers.rabbitmq_names import QUICK, quick, way
from fsdf_engine.contracts import Part
from fsdf_engine.errors import ServerRefused
from fsdf_engine.outcomes import ACK
from fsdf_engine.testing.brokers import MB, outgoing
from fsdf_engine.testing.deliveries import fetch_some

BROKERS = ["rabbitmq_pika", "rabbitmq_amqpstorm", "rabbitmq_rabbitpy"]
KINDS = ["quorum", "classic"]
Q = "delays"


@pytest.fixture(params=BROKERS)
def kind_of_broker(request):
    """By which client `make` makes brokers."""
    return request.param


@pytest.fixture
def other(rabbitmq_url):
    """A channel of another program."""
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        yield connection.channel()


@pytest.fixture
def powerless(rabbitmq_url, rabbitmq_api):
    """The URL of a user who may write and read, and configure nothing."""
    vhost = urlsplit(rabbitmq_url).path[1:]
    name = f"{vhost}_powerless"
    rabbitmq_api("PUT", f"users/{name}", {"password": "s3cret", "tags": ""})
    rights = {"configure": "^$", "write": ".*", "read": ".*"}
    rabbitmq_api("PUT", f"permissions/{quote(vhost, safe='')}/{name}", rights)
    parts = urlsplit(rabbitmq_url)
    yield f"amqp://{name}:s3cret@{parts.hostname}:{parts.port}/{vhost}"
    rabbitmq_api("DELETE", f"users/{name}")


def received(sub, count):
    found = []
    while len(found) < count:
        found += fetch_some(sub, count - len(found))
    assert not sub.settle([(d.lease, ACK) for d in found])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_message_goes_from_rung_to_rung_until_its_time(make, rabbitmq_url, kind, monkeypatch):
    """With a thousandth of a second instead of a tenth, for the sake of the upper rungs."""
    monkeypatch.setattr(rabbitmq_rungs, "TENTH", 0.001)
    broker, lasted = make(f"{rabbitmq_url}?queue_type={kind}"), {}
    waits = [1, 7, 8, 56, 63, 127, 128, 248, 1280, 4088, 4096, 4800, 4808]
    sent = []
    for n in waits:
        exchange, key = way(Q, n)
        told = {"message_id": f"{n}", "delivery_mode": 2}
        sent.append(Publishing(key, b"%d" % n, told, exchange))
    sub = broker.subscribe(Q, lease=10.0)
    assert not sub.fetch(1, MB)
    broker._prepare(Q, sent)
    began = time.time()
    answer = broker._publisher(sent)
    assert not (answer.refused or answer.returned or answer.unknown)
    while len(lasted) < len(waits):
        lasted |= {int(d.body): time.time() - began for d in received(sub, 1)}
    assert sorted(lasted) == waits
    assert all(lasted[n] >= n / 1000 for n in waits)
    assert broker.size(Q)[:2] == (0, 0)
    sub.close()


@pytest.mark.parametrize("kind", KINDS)
def test_rungs_that_others_have_made_are_counted_and_purged(make, rabbitmq_url, kind):
    url = f"{rabbitmq_url}?queue_type={kind}"
    first, second = make(url), make(url)
    assert second.size(Q)[:2] == (0, 0)
    first.publish([outgoing(n, Q, delay=delay) for n, delay in enumerate((20.0, 60.0, 4000.0))])
    assert second.size(Q)[:2] == (0, 3)
    assert second.purge(Q, Part.DELAYED) == 3
    assert first.size(Q)[:2] == (0, 0)


def test_rungs_that_others_have_deleted_have_nothing(make, rabbitmq_url, other):
    broker = make(rabbitmq_url)
    broker.publish([outgoing(n, Q, delay=delay) for n, delay in enumerate((60.0, 500.0))])
    assert broker.size(Q)[:2] == (0, 2)
    for n in range(QUICK):
        other.queue_delete(quick(Q, n))
    for _ in range(2):
        assert broker.size(Q)[:2] == (0, 1)


@pytest.mark.parametrize("place", [0, 1])
def test_rung_that_others_have_deleted_is_made_before_the_next_message_needs_it(
    make, rabbitmq_url, rabbitmq_api, monkeypatch, place
):
    """While who publishes and who consumes live; the first rung of a walk, and the one after it."""
    monkeypatch.setattr(rabbitmq_rungs, "OFTEN", 0.0)
    broker, sub_of = make(rabbitmq_url), make(rabbitmq_url)
    sub = sub_of.subscribe(Q, lease=10.0)
    for n in range(2):
        told = time.time()
        broker.publish([outgoing(n, Q, delay=1.0)])
        [d] = received(sub, 1)
        assert d.body == outgoing(n, Q).body
        assert time.time() >= told + 0.99
        rung = way(Q, 9)[place]
        vhost = quote(urlsplit(rabbitmq_url).path[1:], safe="")
        assert rabbitmq_api("GET", f"queues/{vhost}/{rung}")["name"] == rung
        rabbitmq_api("DELETE", f"queues/{vhost}/{rung}")
    assert broker.size(Q)[:2] == (0, 0)
    sub.close()


def test_what_a_former_version_has_delayed_is_counted_purged_and_comes(make, rabbitmq_url, other):
    """It had a ladder of a queue and an exchange for each bit of the delay."""
    broker = make(rabbitmq_url)
    broker.publish([outgoing(1, Q)])
    keys = {k: ".".join("*" * (27 - k) + "1" + "*" * k) for k in range(2)}
    for k, key in keys.items():
        name, after = f"{Q}.delay.{k}", f"{Q}.delay.{k - 1}"
        other.exchange_declare(name, "topic", durable=True)
        arguments = {
            "x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish", "x-message-ttl": 3_600_000 if k else 100,
            "x-dead-letter-exchange": after if k else "",
        }  # fmt: skip
        if not k:
            arguments["x-dead-letter-routing-key"] = Q
        other.queue_declare(name, durable=True, arguments=arguments)
        other.queue_bind(name, name, key)
    bits = ".".join("0" * 26)
    other.basic_publish(f"{Q}.delay.1", f"{bits}.1.0", b"long")
    until(lambda: broker.size(Q)[:2] == (1, 1))
    broker.publish([outgoing(2, Q, delay=60.0)])
    other.basic_publish(f"{Q}.delay.0", f"{bits}.0.1", b"short")
    until(lambda: broker.size(Q)[:2] == (2, 2))
    assert broker.purge(Q, Part.DELAYED) == 2
    sub = broker.subscribe(Q, lease=10.0)
    assert sorted(d.body for d in received(sub, 2)) == [b"short", b'{"n":1}']
    sub.close()


def test_ways_to_a_queue_that_was_deleted_are_made_anew(make, rabbitmq_url, other, monkeypatch):
    """Those of long walks, with a thousandth of a second instead of a tenth."""
    monkeypatch.setattr(rabbitmq_rungs, "TENTH", 0.001)
    make(rabbitmq_url).publish([outgoing(1, Q, delay=60_000.0)])
    other.queue_delete(Q)
    broker = make(rabbitmq_url)
    exchange, key = way(Q, 4096)
    sent = [Publishing(key, b"2", {"message_id": "2", "delivery_mode": 2}, exchange)]
    broker._shape(Q)
    broker._prepare(Q, sent)
    broker._publisher(sent)
    sub = broker.subscribe(Q, lease=10.0)
    assert [d.body for d in received(sub, 1)] == [b"2"]
    assert broker.size(Q)[:2] == (0, 1)
    sub.close()


def test_who_may_configure_nothing_delays_where_there_are_rungs(make, rabbitmq_url, powerless):
    make(rabbitmq_url).publish([outgoing(1, Q, delay=60.0)])
    broker = make(powerless)
    broker.publish([outgoing(2, Q, delay=60.0)])
    assert broker.size(Q)[:2] == (0, 2)
    with pytest.raises(ServerRefused, match=r"the right to configure 'delays\.delay\.0\.1'"):
        broker.publish([outgoing(3, Q, delay=40_000.0)])
    assert broker.purge(Q, Part.DELAYED) == 2


def test_what_is_early_takes_no_room_of_what_is_due(make, rabbitmq_url, monkeypatch):
    """Nor while there is always something that can be fetched."""
    monkeypatch.setattr(rabbitmq_buffer, "HOLD", 3600.0)
    broker = make(rabbitmq_url)
    sub = broker.subscribe(Q, lease=10.0)
    assert not sub.fetch(50, MB)
    prefetch = sub._stream.prefetch
    told = {"fsdf-due": round((time.time() + 3600.0) * 1000)}
    broker.publish([outgoing(n, Q) for n in range(10)])
    broker._publisher(
        [Publishing(Q, b"early", {"message_id": f"{n}", "headers": told}) for n in range(100)]
    )
    broker.publish([outgoing(n, Q) for n in range(10, 30)])
    until(lambda: sub.let_come() == prefetch)
    found = [*sub.fetch(4, MB)]
    found += sub.fetch(50, MB)
    until(lambda: len(found) + sub.buffer.sizes()[0] == 30)
    found += sub.fetch(50, MB)
    assert sub.buffer.sizes() == (0, 100)
    assert not sub.settle([(d.lease, ACK) for d in found])
    sub.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_time_that_nobody_can_have_meant_delays_no_repeat(make, rabbitmq_url, kind, monkeypatch):
    """Where a copy has to count the lost lease it has what is left of the message's delay."""
    for module in (rabbitmq_buffer, rabbitmq_subscription):
        monkeypatch.setattr(module, "HOLD", 0.1)
    broker = make(f"{rabbitmq_url}?queue_type={kind}")
    broker._shape(Q)
    told = {"message_id": "far", "headers": {"fsdf-due": 2**52}}
    broker._publisher([Publishing(Q, b"far", told)])
    for deliveries in range(2):
        sub = broker.subscribe(Q, lease=10.0)
        [found] = fetch_some(sub)
        assert (found.body, found.deliveries) == (b"far", deliveries)
        if not deliveries:
            sub.close()
    assert not sub.settle([(found.lease, ACK)])
    assert broker.size(Q)[:2] == (0, 0)
    sub.close()
