"""What the brokers of RabbitMQ decide without a server: URLs, names, versions, forms, acks."""

from __future__ import annotations

import threading
import time

import pytest
from helpers import until
from hypothesis import given
from hypothesis import strategies as st

from fsdf_engine.brokers.amqp_client import Publishing, Received
from fsdf_engine.brokers.amqp_confirms import Confirms
from fsdf_engine.brokers.amqp_owner import Owner
from fsdf_engine.brokers.rabbitmq_buffer import HOLD, Buffer
from fsdf_engine.brokers.rabbitmq_held import Held
from fsdf_engine.brokers.rabbitmq_leases import Lease, Tags
from fsdf_engine.brokers.rabbitmq_message import changed, delivery, lost_of, outgoing
from fsdf_engine.brokers.rabbitmq_names import valid
from fsdf_engine.brokers.rabbitmq_server import LIMIT, LINES, Server, Shape, learn, server_of
from fsdf_engine.brokers.rabbitmq_subscription import RabbitSubscription
from fsdf_engine.brokers.rabbitmq_topology import Topology
from fsdf_engine.brokers.rabbitmq_url import target
from fsdf_engine.contracts import Capability, Outgoing
from fsdf_engine.errors import ConfigurationError, Unavailable
from fsdf_engine.green import Event

# As servers introduce themselves; what is of no use here is left out.
SERVERS = {
    "3.7": {"product": "RabbitMQ", "version": "3.7.28", "platform": "Erlang/OTP 22.3"},
    "3.10": {"product": "RabbitMQ", "version": "3.10.8", "platform": "Erlang/OTP 25.2.3"},
    "3.13": {"product": b"RabbitMQ", "version": b"3.13.7", "platform": b"Erlang/OTP 26.2.5"},
    "4.0": {"product": "RabbitMQ", "version": "4.0.5", "platform": "Erlang/OTP 27.2"},
    "4.3": {"product": "RabbitMQ", "version": "4.3.0", "platform": "Erlang/OTP 28.1"},
    "other": {"product": "LavinMQ", "version": "2.1.0"},
    "none": {},
}
QUORUM, CLASSIC = Shape("quorum"), Shape("classic", LINES, own_lines=True)


def test_url_has_everything_that_it_needs():
    [place] = target("amqps://me%40x:p%2F%3A@[::1]:7/a%2Fb?timeout=2").endpoints
    told = (place.host, place.port, place.user, place.password, place.vhost, place.timeout)
    assert told == ("::1", 7, "me@x", "p/:", "a/b", 2.0)
    assert place.tls is not None
    assert "p/:" not in repr(place)


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://h", "/"), ("amqp://h/", "/"), ("pyamqp://h//", "/"), ("amqp://h/%2F", "/"),
        ("amqp://h/v", "v"), ("amqp://h/%2Fv", "/v"), ("amqp://h/a%20b", "a b"),
    ],
)  # fmt: skip
def test_virtual_host_that_is_not_given_is_the_default_one(url, vhost):
    [place] = target(url).endpoints
    assert (place.host, place.port, place.vhost, place.user) == ("h", 5672, vhost, "guest")


def test_several_hosts_are_tried_in_their_order():
    found = target("amqp://u:p@a:1,b/v;amqp://c:3?queue_type=classic")
    assert [(e.host, e.port, e.vhost) for e in found.endpoints] == [
        ("a", 1, "v"), ("b", 5672, "v"), ("c", 3, "/"),
    ]  # fmt: skip
    assert found.queue_type == "classic"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h", "amqp://"), ("h:5672", "amqp://"), ("amqp://h:x", "'x' is no port"),
        ("amqp://h:99999", "no port"), ("amqp://h?queue_typ=classic", "did you mean 'queue_type'"),
        ("amqp://h?queue_type=qorum", "did you mean 'quorum'"), ("amqp://h?timeout=x", "float"),
        ("amqps://h?ssl_ca_certs=/no/such", "certificates"),
    ],
)  # fmt: skip
def test_url_that_is_wrong_is_told_without_its_password(url, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        target(url.replace("://", "://me:secret@"))
    assert "secret" not in str(caught.value)
    assert "in broker_url or RABBITMQ_URL" in str(caught.value)


@pytest.mark.parametrize(
    ("version", "server"),
    [
        ("3.7", Server((3, 7))), ("3.10", Server((3, 10), True, True)),
        ("3.13", Server((3, 13), True, True)), ("4.0", Server((4, 0), True, True)),
        ("4.3", Server((4, 3), True, True, True)), ("other", Server((2, 1))), ("none", Server()),
    ],
)  # fmt: skip
def test_server_has_what_its_version_has(version, server):
    assert server_of(SERVERS[version]) == server


@pytest.mark.parametrize(
    ("version", "shape", "prior", "counted"),
    [
        ("3.10", QUORUM, False, False), ("4.0", QUORUM, False, False), ("4.3", QUORUM, True, True),
        ("3.10", CLASSIC, True, False), ("4.3", CLASSIC, True, False),
        ("3.10", Shape("classic"), False, False), ("4.3", Shape("unknown", 0, False), False, False),
    ],
)  # fmt: skip
def test_queue_can_what_its_kind_can_on_that_version(version, shape, prior, counted):
    can = shape.capabilities(server_of(SERVERS[version]))
    assert (Capability.PRIORITY in can, Capability.COUNTED in can) == (prior, counted)
    assert (Capability.ORDERED in can) == shape.returns
    for flag in ("PULL", "TIMED", "BROWSE", "ATOMIC", "SIZE_LEASED", "LISTED", "DEDUPE"):
        assert Capability[flag] not in can
    less = shape._replace(ours=False).capabilities(server_of(SERVERS[version]))
    assert not less & (Capability.DELAY | Capability.DEAD_LETTER)


REFUSALS = [
    (
        "inequivalent arg 'x-queue-type' for queue 'p' in vhost '/': received the value 'quorum' of"
        " type 'longstr' but current is none",
        {"durable": True, "x-delivery-limit": LIMIT},
    ),
    (
        "inequivalent arg 'x-queue-type' for queue 'p' in vhost '/': received 'quorum' but current"
        " is 'stream'",
        {"durable": True, "x-queue-type": "stream", "x-delivery-limit": LIMIT},
    ),
    (
        "inequivalent arg 'x-max-priority' for queue 'is none' in vhost '/': received none but"
        " current is the value '10' of type 'signedint'",
        {
            "durable": True, "x-queue-type": "quorum", "x-delivery-limit": LIMIT,
            "x-max-priority": 10,
        },
    ),
    (
        "inequivalent arg 'durable' for queue 'p' in vhost '/': received 'true' but current is"
        " 'false'",
        {"durable": False, "x-queue-type": "quorum", "x-delivery-limit": LIMIT},
    ),
    (
        "inequivalent arg 'x-delivery-limit' for queue 'p' in vhost '/': received '1000000' but"
        " current is '5'",
        {"durable": True, "x-queue-type": "quorum", "x-delivery-limit": 5},
    ),
    ("something else is wrong", None),
    ("inequivalent arg 'x' for queue 'p' in vhost '/': current is what nobody knows", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "after"), REFUSALS)
def test_arguments_of_a_queue_are_learnt_from_refusals(text, after):
    before = {"durable": True, "x-queue-type": "quorum", "x-delivery-limit": LIMIT}
    assert learn(before, f"PRECONDITION_FAILED - {text}") == after


def test_names_that_lie_beside_others_are_refused():
    for name in (
        "amq.q",
        "q.dead",
        "q.delay.3",
        "q.delay.3.1",
        "q.held.0aff",
        "x" * 231,
        "ж" * 116,
        "q\n.dead",
        "q\nnew",
    ):
        with pytest.raises(ConfigurationError, match="queue's name"):
            valid(name)
    for name in (
        "q",
        "dead",
        "q.deadly",
        "q.delay",
        "q.delay.x",
        "a amq.",
        "x" * 230,
        "q.held.xyz",
    ):
        valid(name)


def test_priorities_are_lines_of_our_queues_and_numbers_of_others():
    def told(priority, shape):
        item = Outgoing("q", "id", b"", priority=priority)
        return outgoing(item, shape, 0.0).properties

    def sent(priority, shape):
        return told(priority, shape).get("priority", 0)

    assert [sent(n, CLASSIC) for n in (9, 1, 0, -1, -3, -6, -9)] == [12, 4, 3, 3, 2, 1, 0]
    others = Shape("classic", 10)
    assert [sent(n, others) for n in (9, 1, 0, -3, -9)] == [9, 1, 0, 0, 0]
    for shape in (CLASSIC, others, QUORUM):
        for priority in (5, 0, -6):
            headers = changed(told(priority, shape), "id", None, 0)["headers"]
            message = received(headers, priority=sent(priority, shape))
            assert delivery((1, 1), message, "id", 0, shape).priority == priority


def received(headers=None, **options):
    return Received(1, False, b"", headers, "id", options.get("priority"), None, None)


def test_copy_keeps_what_others_have_written_and_forgets_its_past():
    before = {
        "correlation_id": "c", "reply_to": "r", "expiration": "5", "user_id": "me", "priority": 3,
        "delivery_mode": 1, "cluster_id": "",
        "headers": {"a": "b", "deep": {"x": 1}, "x-death": [], "fsdf-due": 5, "fsdf-lost": 2},
    }  # fmt: skip
    assert changed(before, "id", {"attempt": 1}, 3) == {
        "correlation_id": "c", "reply_to": "r", "priority": 3, "message_id": "id",
        "delivery_mode": 2,
        "headers": {"a": "b", "deep": {"x": 1}, "fsdf-state": '{"attempt":1}', "fsdf-lost": 3},
    }  # fmt: skip
    assert before["headers"]["fsdf-due"] == 5


def test_what_comes_back_from_a_long_run_was_lost_once():
    assert lost_of({"x-first-death-queue": "q.held.0af", "fsdf-lost": 2}, "q") == 3
    assert lost_of({"x-first-death-queue": "q.delay.0.3"}, "q") == 0
    assert lost_of({"x-first-death-queue": "other.held.0af"}, "q") == 0
    assert lost_of({"fsdf-lost": True}, "q") == lost_of({"fsdf-lost": -1}, "q") == 0


def test_state_that_another_program_has_written_is_none():
    for state in ("no JSON", 7, b"\xff", None, [1]):
        assert delivery((1, 1), received({"fsdf-state": state}), "id", 0, QUORUM).state is None


@given(st.integers(1, 40), st.data())
def test_every_message_is_acknowledged_once_and_none_before_it_is_done(count, data):
    tags, server = Tags(), set(range(1, count + 1))
    for tag in sorted(server):
        tags.came(tag)
    left, done, given_back = list(server), set(), set()
    while left:
        some = data.draw(st.lists(st.sampled_from(left), min_size=1, unique=True))
        left = [tag for tag in left if tag not in some]
        if data.draw(st.booleans()):
            tags.returned(some)
            given_back |= set(some)
            server -= set(some)
            continue
        done |= set(some)
        last, singles = tags.acked(some)
        multiple = {tag for tag in server if tag <= last}
        assert multiple | set(singles) <= done
        server -= multiple | set(singles)
        assert not done & server
    assert not server


def test_lease_is_its_channels_although_another_one_follows_during_a_fetch():
    buffer = Buffer("q", Event())
    buffer.begin(1, CLASSIC, Server(), Tags(), dict)
    buffer.put(received())
    source, messages = buffer._pop(5, 1000)
    buffer.begin(2, QUORUM, Server(), Tags(), dict)
    told, found, again = buffer.leased(messages[0], source)
    assert (told.lease, found.shape, again) == ((1, 1), CLASSIC, False)
    assert buffer.take(5, 1000) == ([], [])


def test_what_comes_early_is_held_back_and_no_longer_than_clocks_may_differ():
    bell = Event()
    buffer = Buffer("q", bell)
    buffer.begin(1, CLASSIC, Server(), Tags(), dict)
    now = time.time()
    buffer.put(received({"fsdf-due": round((now + 3600) * 1000)}))
    assert bell.is_set()
    assert not buffer
    assert buffer.sizes() == (0, 1)
    assert HOLD - 0.5 < buffer.next_due() <= HOLD
    buffer.put(received({"fsdf-due": round((now - 5) * 1000)}))
    assert buffer
    [(told, _)], _ = buffer.take(5, 1000)
    assert told.state is None
    assert [message.tag for message in buffer.take_all()] == [1]
    assert buffer.sizes() == (0, 0)


def test_lost_leases_of_classic_queues_are_remembered_by_copies():
    buffer = Buffer("q", Event())
    buffer.begin(1, CLASSIC, Server(), Tags(), dict)
    again = received({"fsdf-lost": 2})
    again.redelivered = True
    buffer.put(again)
    taken, [(_, lease)] = buffer.take(5, 1000)
    assert (taken, lease.lost) == ([], 3)
    buffer.gave_back([again])  # that it comes again is our own doing
    buffer.put(again)
    [(told, _)], anew = buffer.take(5, 1000)
    assert (told.deliveries, anew) == (2, [])


class Silent:
    """A connection, and its channel, whose server takes everything and says nothing."""

    def __init__(self):
        self.acked, self.take = [], None

    def channel(self):
        return self

    def consume(self, queue, prefetch, take):
        self.take = take

    def ack(self, tag):
        self.acked.append(tag)

    def wait(self, timeout):
        raise Unavailable("cut")

    def declare(self, *_): ...

    def count(self, queue):
        return 0, 1


def test_copies_of_a_run_that_was_not_moved_are_dropped_when_they_come():
    server = Silent()
    held, copies = Held(server, "q"), []
    lease = Lease(received({"a": "b"}), "id", 0, None, CLASSIC, lambda message: {})
    with pytest.raises(Unavailable):
        held.move([((1, 1), lease), ((1, 2), lease)], copies.extend)
    assert lease.held == 0
    for copy, tag in zip(copies, (7, 8), strict=True):
        late = received(copy.properties["headers"])
        late.tag = tag
        server.take(late)
    assert server.acked == [7, 8]


def test_long_runs_are_looked_for_while_others_are_handed_out():
    sub = RabbitSubscription("q", Silent, Topology("quorum"), lambda *_: None)

    class Run:
        @property
        def at(self):
            sub._handed[1, len(sub._handed)] = self
            return 1.0

    sub._handed[1, 0] = Run()
    assert [lease for lease, _ in sub._handed_before(2.0)] == [(1, 0)]


def test_confirms_are_counted_by_batches():
    confirms = Confirms()

    def publish(*ids):
        for id in ids:
            confirms.expect(Publishing("q", b"", {"message_id": id}))

    publish("a", "b", "c", "b")
    confirms.answered(3, False, False)
    confirms.answered(2, True, True)
    assert not confirms.over
    confirms.returned("q", "c")
    confirms.answered(4, True, False)
    assert confirms.over
    assert confirms.answer(None)[:3] == ([0, 1], [2], [])
    publish("d", "e")
    confirms.answered(5, False, False)
    error = OSError()
    assert confirms.answer(error) == ([], [], [1], error, {})


def test_what_was_not_written_has_no_confirm_and_keeps_its_place():
    confirms = Confirms()
    items = [Publishing("q", b"", {"message_id": id}) for id in "abcdefg"]
    why = {n: ValueError(n) for n in (0, 2, 3)}
    left = iter(items)
    for n, item in zip(range(5), left):
        confirms.expect(item)
        if n in why:
            confirms.withdraw(item, why[n])
    confirms.returned("q", "b")
    confirms.answered(1, False, False)  # "b" is the first that was sent
    error = OSError()
    assert confirms.answer(error, left) == ([], [1], [4, 5, 6], error, why)
    confirms.expect(items[0])
    confirms.answered(5, True, True)
    assert confirms.over
    assert confirms.answer(None) == ([0], [], [], None, {})


def test_no_thread_is_left_where_there_is_no_connection():
    def connect():
        raise Unavailable("nobody is there")

    owner = Owner(connect, "fsdf-nobody")
    for _ in range(2):  # a thread of its own each time
        with pytest.raises(Unavailable, match="nobody is there"):
            owner(owner.connection)
        until(lambda: "fsdf-nobody" not in [thread.name for thread in threading.enumerate()])
