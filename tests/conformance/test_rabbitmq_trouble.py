"""RabbitMQ that refuses, is out of reach, or was set up by others: told in time, nothing lost."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pika
import pytest
from chaos.proxy import Proxy
from helpers import BOUND, free_port, until

from fsdf_engine import ConfigurationError, task_deco
from fsdf_engine.brokers import rabbitmq, rabbitmq_rungs
from fsdf_engine.brokers.amqp_client import Publishing
from fsdf_engine.brokers.green import GreenBroker
from fsdf_engine.brokers.rabbitmq_names import QUICK, quick
from fsdf_engine.brokers.rabbitmq_pika import RabbitmqPikaBroker
from fsdf_engine.checks import able
from fsdf_engine.contracts import Capability, Letter, Outgoing, Part
from fsdf_engine.errors import FsdfError, PublishError, ServerRefused, Unavailable
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.testing.brokers import MB, fetch_some, outgoing

BROKERS = ["rabbitmq_pika", "rabbitmq_amqpstorm"]
Q = "trouble"


@pytest.fixture(params=BROKERS)
def kind_of_broker(request):
    """By which client `make` makes brokers."""
    return request.param


@pytest.fixture
def other(rabbitmq_url):
    """A connection of another program."""
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        yield connection


@pytest.fixture
def user(rabbitmq_url, rabbitmq_api):
    """`user(configure, write, read)` -> the URL of somebody who has these rights."""
    vhost, names = urlsplit(rabbitmq_url).path[1:], []

    def user(configure=".*", write=".*", read=".*"):
        name = f"{vhost}_{len(names)}"
        names.append(name)
        rabbitmq_api("PUT", f"users/{name}", {"password": "s3cret", "tags": ""})
        rights = {"configure": configure, "write": write, "read": read}
        rabbitmq_api("PUT", f"permissions/{quote(vhost, safe='')}/{name}", rights)
        parts = urlsplit(rabbitmq_url)
        return f"amqp://{name}:s3cret@{parts.hostname}:{parts.port}/{vhost}"

    yield user
    for name in names:
        rabbitmq_api("DELETE", f"users/{name}")


def fetched(sub, count):
    found = []
    while len(found) < count:
        found += fetch_some(sub, count - len(found))
    return found


def works(broker, queue=Q):
    """Publish, receive, give back, retry, and end."""
    broker.publish([outgoing(n, queue) for n in range(3)])
    sub = broker.subscribe(queue, lease=10.0)
    found = {d.body: d for d in fetched(sub, 3)}
    verdicts = [ACK, Release(), Release(0.0, {"attempt": 1})]
    assert not sub.settle(
        [(found[b'{"n":%d}' % n].lease, verdict) for n, verdict in enumerate(verdicts)]
    )
    again = {d.body: d for d in fetched(sub, 2)}
    assert (again[b'{"n":1}'].state, again[b'{"n":2}'].state) == (None, {"attempt": 1})
    assert not sub.settle([(d.lease, ACK) for d in again.values()])
    assert broker.size(queue)[:2] == (0, 0)
    sub.close()


@pytest.mark.parametrize("wrong", ["me:s3cret@", "guest:s3cret@", "no vhost"])
def test_who_is_not_known_is_refused_at_once(make, rabbitmq_url, wrong):
    parts = urlsplit(rabbitmq_url)
    where = f"{parts.hostname}:{parts.port}"
    url = f"amqp://{wrong}{where}{parts.path}"
    if wrong == "no vhost":
        url = f"amqp://guest:guest@{where}/s3cret-no-such"
    broker, began = make(url), time.monotonic()
    for ask in (broker.check, lambda: broker.publish([outgoing(1, Q)]), lambda: broker.size(Q)):
        with pytest.raises(ServerRefused, match="broker_url or RABBITMQ_URL") as told:
            ask()
        assert "s3cret@" not in str(told.value)
    assert time.monotonic() - began < BOUND


def test_server_that_is_not_there_is_unavailable(make):
    broker = make(f"amqp://127.0.0.1:{free_port()}/")
    for ask in (broker.check, lambda: broker.publish([outgoing(1, Q)]), lambda: broker.size(Q)):
        with pytest.raises(
            Unavailable, match=r"127.0.0.1:\d+ cannot be reached .*; is it running\?"
        ):
            ask()
    sub = broker.subscribe(Q, lease=10.0)
    for ask in (lambda: sub.fetch(1, MB), lambda: sub.wait(5.0)):
        with pytest.raises(Unavailable):
            ask()
    sub.close()


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01"]
)
def test_what_is_no_such_server_is_unavailable_in_time(make, says):
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve():
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return
                if says:
                    kept[-1].sendall(says)
                    kept[-1].shutdown(socket.SHUT_WR)

        threading.Thread(target=serve, daemon=True).start()
        broker = make(f"amqp://127.0.0.1:{server.getsockname()[1]}/?timeout=1")
        began = time.monotonic()
        with pytest.raises(Unavailable):
            broker.check()
        assert time.monotonic() - began < 5.0
        server.shutdown(socket.SHUT_RDWR)
        for one in kept:
            one.close()


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_connection_that_is_lost_in_the_handshake_is_no_refusal(make, rabbitmq_url, answers):
    parts = urlsplit(rabbitmq_url)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with (
                server.accept()[0] as ours,
                socket.create_connection((parts.hostname, parts.port)) as there,
            ):
                for _ in range(answers):
                    there.sendall(ours.recv(MB))
                    ours.sendall(there.recv(MB))
                ours.recv(MB)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        broker = make(f"amqp://127.0.0.1:{server.getsockname()[1]}{parts.path}?timeout=5")
        with pytest.raises(Unavailable, match="cannot be reached") as told:
            broker.check()
        thread.join(BOUND)
    if answers and isinstance(broker, RabbitmqPikaBroker):
        assert "may also be the user, the password or the vhost" in str(told.value)


def test_next_host_is_used_where_the_first_is_not_there(make, rabbitmq_url):
    parts = urlsplit(rabbitmq_url)
    hosts = f"127.0.0.1:{free_port()},{parts.hostname}:{parts.port}"
    works(make(f"amqp://guest:guest@{hosts}{parts.path}"))


def test_who_may_configure_nothing_uses_what_is_there(make, user, other):
    broker = make(user(configure="^$"))
    with pytest.raises(ServerRefused, match="'trouble'.*rights"):
        broker.publish([outgoing(1, Q)])
    other.channel().queue_declare(Q, durable=True)
    works(broker)
    can = broker.capabilities_of(Q)
    assert not can & (Capability.DELAY | Capability.DEAD_LETTER | Capability.ORDERED)
    with pytest.raises(ServerRefused, match="delayed"):
        broker.publish([outgoing(1, Q, delay=60.0)])
    assert broker.size(Q)[:2] == (0, 0)


def test_who_may_not_write_is_told(make, user, other):
    other.channel().queue_declare(Q, durable=True)
    broker = make(user(write="^$"))
    with pytest.raises(ServerRefused, match="ACCESS_REFUSED"):
        broker.publish([outgoing(1, Q), outgoing(2, Q)])


def test_who_may_not_read_is_told(make, user):
    broker = make(user(read="^$"))
    broker.publish([outgoing(1, Q)])
    sub = broker.subscribe(Q, lease=10.0)
    with pytest.raises(FsdfError, match="ACCESS_REFUSED"):
        sub.fetch(1, MB)
    sub.close()


QUEUES = {
    "plain": {},
    "short-lived": {"durable": False},
    "priorities": {"arguments": {"x-max-priority": 10}},
    "quorum": {"arguments": {"x-queue-type": "quorum"}},
    "limited": {"arguments": {"x-queue-type": "quorum", "x-delivery-limit": 3}},
    "odd": {
        "arguments": {
            "x-message-ttl": 600_000, "x-max-length": 5000, "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "amq.fanout", "x-queue-mode": "lazy", "x-mine": "text",
        },
    },
    "auto-deleted": {"auto_delete": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize("name", QUEUES)
def test_queue_of_others_is_taken_as_it_is(make, rabbitmq_url, other, name, kind):
    channel = other.channel()
    channel.queue_declare(Q, **{"durable": True, **QUEUES[name]})
    broker = make(f"{rabbitmq_url}?queue_type={kind}")
    works(broker)
    can = broker.capabilities_of(Q)
    assert (Capability.PRIORITY in can) == (name == "priorities")
    # a limit that is not ours would drop what is given back too often, so it is copied instead
    assert (Capability.ORDERED in can) == (name not in ("quorum", "limited", "auto-deleted"))


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_priority_that_counts_for_little_is_told_once(make, rabbitmq_url, kind, caplog):
    broker = make(f"{rabbitmq_url}?queue_type={kind}")
    broker.publish([outgoing(0, Q)])
    assert "has no priorities" not in caplog.text
    for n in range(2):
        broker.publish([outgoing(n, Q, priority=9)])
    prior = Capability.PRIORITY in broker.capabilities_of(Q)
    assert caplog.text.count("has no priorities") == (0 if prior else 1)


@pytest.mark.parametrize("wrap", [lambda broker: broker, GreenBroker], ids=["plain", "green"])
def test_refusal_of_a_priority_names_the_way_out(make, rabbitmq_url, other, wrap):
    other.channel().queue_declare(Q, durable=True)  # of no server it has priorities
    task = task_deco(Q, priority=5)(lambda: None)
    with pytest.raises(ConfigurationError, match=r"no PRIORITY; put \?queue_type=classic into"):
        able(wrap(make(rabbitmq_url)), Q, [task])


def test_message_of_a_limited_queue_is_given_back_as_often_as_one_likes(make, rabbitmq_url, other):
    other.channel().queue_declare(Q, durable=True, **QUEUES["limited"])
    broker = make(rabbitmq_url)
    broker.publish([outgoing(1, Q)])
    sub = broker.subscribe(Q, lease=10.0)
    for _ in range(8):
        [d] = fetched(sub, 1)
        assert not sub.settle([(d.lease, Release())])
        sub.rest()
    assert broker.size(Q).waiting == 1
    sub.close()


class Raw(bytes):
    """A value of a header as it goes over the wire."""


@pytest.fixture
def raw_headers(monkeypatch):
    """pika, the other program, writes `Raw` as it is."""
    encode = pika.data.encode_value

    def raw(pieces, value):
        if type(value) is not Raw:
            return encode(pieces, value)
        pieces.append(bytes(value))
        return len(value)

    monkeypatch.setattr(pika.data, "encode_value", raw)


ODD = {
    "a property out of use": {"cluster_id": "c"},
    "a long name": {"headers": {"k": [{"n" * 200: "v"}], "ä" * 100: "v"}},
    "a text of no UTF-8": {"headers": {"deep": {"k": [1, Raw(b"S\0\0\0\2\xff\xfe")]}}},
}


@pytest.mark.parametrize("odd", ODD)
def test_what_others_write_and_a_client_does_not_hinders_no_copy(
    make, rabbitmq_url, other, raw_headers, odd
):
    broker = make(rabbitmq_url)
    broker.publish([outgoing(1, Q)])
    told = pika.BasicProperties(**ODD[odd])
    other.channel().basic_publish("", Q, b"{}", told)
    sub = broker.subscribe(Q, lease=10.0)
    [one, odd_one] = fetched(sub, 2)
    assert not sub.settle([(odd_one.lease, Release(0.01)), (one.lease, ACK)])
    [again] = fetched(sub, 1)
    assert again.body == b"{}"
    assert not sub.settle([(again.lease, DeadLetter("odd"))])
    [letter] = broker.dead_letters(Q)
    assert letter.body == b"{}"
    sub.close()


UNWRITABLE = {
    "no value of AMQP": {"k": {1, 2}},
    "too large a number": {"k": 2**70},
    "no text": {"k": "\ud800"},
    "too large a fraction": {"k": 1e300},
    "too long a name": {"n" * 300: "v"},
    "too long a name in a list": {"k": [1, {"deep": {"n" * 300: "v"}}]},
}


@pytest.mark.parametrize("kind_of_broker", [*BROKERS, "rabbitmq_rabbitpy"])
@pytest.mark.parametrize("odd", UNWRITABLE)
def test_message_that_no_client_can_write_is_at_fault_itself(make, rabbitmq_url, odd):
    """And the confirms of what is published with it, and after it, are counted as before."""
    broker = make(rabbitmq_url)
    bad = [Outgoing(Q, f"bad{n}", b"{}", UNWRITABLE[odd]) for n in range(2)]
    for batch in ([bad[0]], [outgoing(1, Q), *bad, outgoing(2, Q)], [bad[0], outgoing(3, Q)]):
        with pytest.raises(PublishError) as told:
            broker.publish(batch)
        assert told.value.rejected == [item for item in batch if item in bad]
        assert not told.value.unknown
        assert told.value.__cause__
    broker.publish([outgoing(4, Q)])
    assert broker.size(Q).waiting == 4


@pytest.mark.parametrize("kind_of_broker", [*BROKERS, "rabbitmq_rabbitpy"])
def test_copy_that_no_client_can_write_is_at_fault_itself(make, rabbitmq_url, other, raw_headers):
    """What is stored of the copies that are made with it is not copied again."""
    broker = make(rabbitmq_url)
    broker.publish([outgoing(1, Q)])
    large = {"k": Raw(b"d" + struct.pack(">d", 1e300))}
    other.channel().basic_publish("", Q, b"{}", pika.BasicProperties(headers=large))
    sub = broker.subscribe(Q, lease=10.0)
    [one, bad] = fetched(sub, 2)
    verdicts = [(bad.lease, Release(state={"n": 1})), (one.lease, Release(state={"n": 1}))]
    for _ in range(2):
        with pytest.raises(PublishError) as told:
            sub.settle(verdicts)
        assert [item.body for item in told.value.rejected] == [b"{}"]
    with pytest.raises(PublishError):
        broker.bury([Letter(Q, "bad", b"{}", "why", headers=UNWRITABLE["too large a number"])])
    assert not sub.settle(verdicts[1:])
    assert not sub.settle([(bad.lease, ACK)])
    [again] = fetched(sub, 1)
    assert (again.body, again.state) == (one.body, {"n": 1})
    assert not sub.settle([(again.lease, ACK)])
    assert broker.size(Q) == (0, 0, -1, 0)
    sub.close()


@pytest.mark.parametrize("name", ["stream", "exclusive"])
def test_what_is_no_such_queue_is_refused(make, rabbitmq_url, other, name):
    arguments = {"arguments": {"x-queue-type": "stream"}} if name == "stream" else {}
    other.channel().queue_declare(Q, durable=True, exclusive=name == "exclusive", **arguments)
    broker = make(rabbitmq_url)
    with pytest.raises(ServerRefused, match="'trouble'"):
        broker.publish([outgoing(1, Q)])


def test_queue_that_is_deleted_is_made_again(make, rabbitmq_url, other):
    broker, channel = make(rabbitmq_url), other.channel()
    broker.publish([outgoing(1, Q)])
    channel.queue_delete(Q)
    broker.publish([outgoing(2, Q)])
    sub = broker.subscribe(Q, lease=10.0)
    assert [d.body for d in fetched(sub, 1)] == [b'{"n":2}']
    channel.queue_delete(Q)
    until(lambda: not sub.extend([(1, 1)]) and sub._stream is None)
    broker.publish([outgoing(3, Q)])
    assert [d.body for d in fetched(sub, 1)] == [b'{"n":3}']
    sub.close()


def test_rungs_that_are_deleted_with_their_exchanges_are_made_again(
    make, rabbitmq_url, other, monkeypatch
):
    """At once where they are looked for, else with the push after the one that is rejected."""
    monkeypatch.setattr(rabbitmq_rungs, "OFTEN", 3600.0)
    broker, channel = make(rabbitmq_url), other.channel()

    def delete():
        for n in range(QUICK):
            channel.queue_delete(quick(Q, n))
            channel.exchange_delete(quick(Q, n))

    broker.publish([outgoing(4, Q, delay=60.0)])
    delete()
    for n in (5, 6):
        broker.publish([outgoing(n, Q, delay=60.0)])
    assert broker.size(Q)[:2] == (0, 2)
    delete()
    with pytest.raises(PublishError):
        broker.publish([outgoing(7, Q, delay=60.0)])
    broker.publish([outgoing(7, Q, delay=60.0)])
    assert broker.size(Q)[:2] == (0, 1)


def test_full_queue_rejects_what_it_does_not_take(make, rabbitmq_url, other):
    limits = {"x-max-length": 2, "x-overflow": "reject-publish"}
    other.channel().queue_declare(Q, durable=True, arguments=limits)
    broker = make(rabbitmq_url)
    with pytest.raises(PublishError) as told:
        broker.publish([outgoing(n, Q) for n in range(5)])
    assert [item.id for item in told.value.rejected] == ["id2", "id3", "id4"]
    assert not told.value.unknown
    assert broker.size(Q).waiting == 2


def test_cut_connections_are_opened_again(make, rabbitmq_url):
    parts = urlsplit(rabbitmq_url)
    proxy = Proxy(parts.port)
    broker = make(f"amqp://guest:guest@127.0.0.1:{proxy.port}{parts.path}")
    sub = broker.subscribe(Q, lease=10.0)
    for n in range(3):
        broker.publish([outgoing(n, Q)])
        [d] = fetched(sub, 1)
        assert not sub.settle([(d.lease, ACK)])
        assert broker.size(Q).waiting == 0
        proxy.cut()
        until(lambda: not sub.extend([d.lease]) and sub._stream is None)
        for owner in (broker._publisher.owner, broker._asker):  # each notices by itself
            until(lambda owner=owner: owner(lambda: owner.current) is None)
    sub.close()
    proxy.close()


def test_server_that_falls_silent_ends_leases_and_pushes(make, rabbitmq_url, monkeypatch):
    monkeypatch.setattr(rabbitmq, "HEARTBEAT", 3)  # of pushes, which wait for two or three
    parts = urlsplit(rabbitmq_url)
    proxy = Proxy(parts.port)
    broker = make(f"amqp://guest:guest@127.0.0.1:{proxy.port}{parts.path}?timeout=2")
    broker.publish([outgoing(n, Q) for n in range(2)])
    sub = broker.subscribe(Q, lease=2.0)
    found = fetched(sub, 2)
    proxy.stall()
    began = time.monotonic()
    assert not sub.extend([d.lease for d in found])
    assert time.monotonic() - began < 5.0
    with pytest.raises((PublishError, Unavailable)):
        broker.publish([outgoing(3, Q)])
    proxy.flow()
    taken = []
    while {d.body for d in taken} < {b'{"n":0}', b'{"n":1}'}:
        taken += fetch_some(sub)
        sub.settle([(d.lease, ACK) for d in taken])
    assert set(sub.settle([(d.lease, DeadLetter("late")) for d in found])) == {
        d.lease for d in found
    }
    assert broker.size(Q).dead == 0
    sub.close()
    proxy.close()


def control(server, *command):
    """Run the server's own command."""
    program = Path(server.server.needed()).with_name("rabbitmqctl")
    environment = {**os.environ, **server.server.environment()}
    subprocess.run(
        [str(program), *command], env=environment, check=True, stdout=subprocess.DEVNULL,
        cwd="/", **server.server.identity(),
    )  # fmt: skip


def test_alarm_stops_pushes_and_no_acknowledgements(make, own_server):
    server = own_server("rabbitmq")
    broker = make(server.url)
    broker.publish([outgoing(n, Q) for n in range(3)])
    sub = broker.subscribe(Q, lease=10.0)
    one, two, three = fetched(sub, 3)
    control(server, "set_vm_memory_high_watermark", "0")
    with pytest.raises((Unavailable, PublishError)):
        broker.publish([outgoing(4, Q)])  # by which the server finds out who publishes
    for _ in range(2):
        with pytest.raises(Unavailable, match="takes no messages"):
            broker.publish([outgoing(5, Q)])
    assert not sub.settle([(one.lease, ACK)])
    with pytest.raises(Unavailable, match="takes no messages"):
        sub.settle([(two.lease, Release(0.0, {"attempt": 1}))])
    assert set(sub.extend([one.lease, two.lease, three.lease])) == {two.lease, three.lease}
    control(server, "set_vm_memory_high_watermark", "0.9")
    until(lambda: not pushed_is_refused(broker))
    assert not sub.settle([(two.lease, Release(0.0, {"attempt": 1})), (three.lease, ACK)])
    got = set()
    while not {b'{"n":6}', two.body} <= got:
        found = fetch_some(sub)
        got |= {d.body for d in found}
        assert not sub.settle([(d.lease, ACK) for d in found])
    sub.close()


def pushed_is_refused(broker):
    try:
        broker.publish([outgoing(6, Q)])
    except (Unavailable, PublishError):
        return True
    return False


FORK = """
import os, sys
from fsdf_engine.contracts import Outgoing
from fsdf_engine.outcomes import ACK
from fsdf_engine.registry import brokers

broker = brokers.load(sys.argv[1])(sys.argv[2])
broker.publish([Outgoing("trouble", "1", b"1")])
sub = broker.subscribe("trouble", lease=10.0)
while not (found := sub.fetch(1, 1000)):
    sub.wait(5.0)
if pid := os.fork():
    assert os.waitpid(pid, 0)[1] == 0
    broker.publish([Outgoing("trouble", "3", b"3")])
    assert not sub.settle([(found[0].lease, ACK)])
    size = broker.size("trouble")
    assert size.waiting == 1, size
    broker.close()
else:
    broker.publish([Outgoing("trouble", "2", b"2")])
    assert not sub.extend([found[0].lease])
    mine = broker.subscribe("trouble", lease=10.0)
    while not (got := mine.fetch(1, 1000)):
        mine.wait(5.0)
    assert got[0].body == b"2" and not mine.settle([(got[0].lease, ACK)])
    broker.close()
    os._exit(0)
"""


@pytest.mark.parametrize("name", BROKERS)
def test_forked_child_has_connections_of_its_own(name, rabbitmq_url, tmp_path):
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    done = subprocess.run(
        [sys.executable, str(script), name, rabbitmq_url], timeout=3 * BOUND, capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_comes_before_its_time_keeps_nothing_else_waiting(make, rabbitmq_url):
    """A worker with one slot is sent what is due, however much it holds back."""
    broker = make(rabbitmq_url)
    sub = broker.subscribe(Q, lease=10.0)
    assert not sub.fetch(1, MB)
    due = time.time() + 3.0
    for n in range(20):
        told = {"fsdf-due": round(due * 1000)}
        broker._publisher([Publishing(Q, b"early", {"message_id": f"{n}", "headers": told})])
    waiter = threading.Thread(target=sub.wait, args=(BOUND,))
    waiter.start()
    broker.publish([outgoing(1, Q)])
    waiter.join()
    assert [d.body for d in sub.fetch(1, MB)] == [b'{"n":1}']
    assert time.time() < due - 1.0
    assert broker.size(Q)[:2] == (0, 20)
    sub.close()


def test_dead_letters_are_those_of_the_queue_alone(make, rabbitmq_url):
    broker = make(rabbitmq_url)
    broker.publish([Outgoing(Q, "1", b"1"), Outgoing("trouble2", "2", b"2")])
    for queue in (Q, "trouble2"):
        sub = broker.subscribe(queue, lease=10.0)
        [d] = fetched(sub, 1)
        sub.settle([(d.lease, DeadLetter("x" * 10_000, "y" * 200_000))])
        sub.close()
    assert [x.body for x in broker.dead_letters(Q)] == [b"1"]
    assert broker.purge(Q, Part.DEAD) == 1
    assert broker.purge("trouble2", Part.DEAD) == 1


def test_those_who_begin_on_a_new_queue_at_once_all_receive(make, rabbitmq_url):
    """Some begin while another's queue is there already, but not what leads it."""
    brokers, told = [make(rabbitmq_url) for _ in range(6)], []

    def begin(sub, barrier):
        barrier.wait(BOUND)
        try:
            sub.fetch(1, MB)
        except Unavailable as error:
            told.append(error)

    for n in range(40):
        barrier = threading.Barrier(len(brokers))
        subs = [broker.subscribe(f"{Q}_{n}", lease=10.0) for broker in brokers]
        threads = [threading.Thread(target=begin, args=(sub, barrier)) for sub in subs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for sub in subs:
            sub.close()
    assert not told


def test_what_is_on_its_way_when_another_prefetch_is_wanted_keeps_its_order(make, rabbitmq_url):
    """Large messages are on their way for long enough."""
    broker = make(rabbitmq_url)
    sent = [Outgoing(Q, str(n), b"%d %s" % (n, bytes(50_000))) for n in range(200)]
    for _ in range(6):
        sub = broker.subscribe(Q, lease=10.0)
        sub.fetch(1, MB)
        sub.rest()
        broker.publish(sent)
        sub._owner(lambda: [sub._live().consume(prefetch) for prefetch in (400, 300) * 5])
        found = fetched(sub, len(sent))
        assert [d.id for d in found] == [each.id for each in sent]
        assert not sub.settle([(d.lease, ACK) for d in found])
        sub.close()
