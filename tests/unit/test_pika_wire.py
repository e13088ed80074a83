"""The shorter way of what pika reads and writes: byte for byte what pika would have made of it."""

from __future__ import annotations

from types import SimpleNamespace

import pika
import pytest
from amqp_properties import properties_of
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from fsdf_engine.brokers.amqp_client import Publishing
from fsdf_engine.brokers.pika_wire import Sink, Wire

CHANNEL, FRAME_MAX = 3, 64
ids = st.text(max_size=40).filter(lambda text: len(text.encode()) < 200)
bodies = st.binary(max_size=150)
properties = properties_of(
    ids,
    2**40,
    headers=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=2),
    content_type=st.just("text/plain"),
)


class Client:
    """A connection of pika's, as far as bytes come to it and go from it."""

    is_closed, bytes_received = False, 0
    params = SimpleNamespace(frame_max=FRAME_MAX)

    def __init__(self):
        self.read, self.written = [], []

    def _on_data_available(self, data):
        self.read.append(data)

    def _adapter_emit_data(self, data):
        self.written.append(data)


def wired():
    client = Client()
    wire, sink, taken = Wire(pika, client), Sink(pika), []
    wire.sinks[CHANNEL] = sink
    sink.consumers[b"me"] = taken.append
    return client, wire, sink, taken


def framed(channel, method, told, body):
    made = [frame.Method(channel, method), frame.Header(channel, len(body), told)]
    size = FRAME_MAX - 8
    parts = [frame.Body(channel, body[at : at + size]) for at in range(0, len(body), size)]
    return [one.marshal() for one in (*made, *parts)]


@given(st.lists(st.tuples(properties, bodies, st.booleans()), max_size=4), st.integers(1, 90))
def test_messages_are_read_however_their_bytes_are_cut(messages, step):
    client, _, sink, taken = wired()
    heart = frame.Heartbeat().marshal()
    stream = b""
    for tag, (told, body, again) in enumerate(messages, 1):
        method = spec.Basic.Deliver("me", tag, again, "", "q")
        frames = framed(CHANNEL, method, pika.BasicProperties(**told), body)
        stream += heart.join(frames) + heart  # frames of other channels may stand in between
    for at in range(0, len(stream), step):
        client._on_data_available(stream[at : at + step])
    assert set(client.read) <= {heart}
    assert client.bytes_received == len(stream) - len(heart) * len(client.read)
    for tag, (one, (told, body, again)) in enumerate(zip(taken, messages, strict=True), 1):
        assert (one.tag, one.redelivered, one.body) == (tag, again, body)
        known = (one.message_id, one.priority, one.timestamp, one.headers)
        names = ("message_id", "priority", "timestamp", "headers")
        assert known == tuple(told.get(name) for name in names)
        left = {k: v for k, v in vars(sink.properties(one.source)).items() if v is not None}
        assert left == told


def test_what_no_consumer_of_ours_waits_for_is_left_to_pika_whole():
    client, _, _, taken = wired()
    told = pika.BasicProperties(message_id="1")
    other = framed(CHANNEL, spec.Basic.Deliver("other", 1, False, "", "q"), told, b"body")
    back = framed(CHANNEL, spec.Basic.Return(312, "NO_ROUTE", "", "q"), told, b"body")
    far = framed(CHANNEL + 1, spec.Basic.Deliver("me", 1, False, "", "q"), told, b"body")
    client._on_data_available(b"".join([*other, *back, *far]))
    assert client.read == [*other, *back, *far]
    assert not taken


def test_answer_of_a_server_of_another_version_is_left_to_pika():
    client, _, _, _ = wired()
    client._on_data_available(b"AMQP\0\0\x09\x01")
    assert client.read == [b"AMQP\0\0\x09\x01"]


def test_confirms_are_told():
    client, _, sink, _ = wired()
    told = []
    sink.confirms = lambda *answer: told.append(answer)
    methods = spec.Basic.Ack(7, True), spec.Basic.Nack(8, False), spec.Basic.Ack(9, False)
    client._on_data_available(b"".join(frame.Method(CHANNEL, m).marshal() for m in methods))
    assert told == [(7, True, False), (8, False, True), (9, False, False)]


@pytest.mark.parametrize(
    "header",
    [b"\0\x80\x02\xff\xfe", b"\x80\x80\x01x\x02\xff\xfe", b"\x20\0\0\0\0\xff"],
    ids=["id", "id beside others", "headers"],
)
def test_properties_that_cannot_be_read_keep_no_body_from_being_read(header):
    client, _, _, taken = wired()
    told = pika.BasicProperties()
    method, _, body = framed(CHANNEL, spec.Basic.Deliver("me", 1, False, "", "q"), told, b"body")
    head = b"\0\x3c\0\0" + (4).to_bytes(8, "big") + header
    head = b"\x02\0\x03" + len(head).to_bytes(4, "big") + head + b"\xce"
    client._on_data_available(method + head + body)
    [one] = taken
    assert (one.body, one.message_id, one.headers) == (b"body", None, None)


@given(properties, bodies)
def test_what_is_published_is_written_as_pika_writes_it(told, body):
    client, wire, _, _ = wired()
    wire.publish(CHANNEL, Publishing("q", body, told), wire.method(CHANNEL, "x", "q"))
    wire.flush()
    method = spec.Basic.Publish(exchange="x", routing_key="q", mandatory=True)
    wanted = framed(CHANNEL, method, pika.BasicProperties(**told), body)
    assert b"".join(client.written) == b"".join(wanted)


def test_what_is_written_together_leaves_together_and_nothing_once_closed():
    client, wire, _, _ = wired()
    wire.send(b"1")
    wire.send(b"2")
    assert not client.written
    wire.flush()
    assert client.written == [b"12"]
    client.is_closed = True
    wire.send(b"3")
    wire.flush()
    assert client.written == [b"12"]


def test_pika_of_another_kind_is_left_to_its_own_ways():
    client = SimpleNamespace(is_closed=False)
    wire = Wire(pika, client)
    wire.opened()
    wire.flush()
    assert not wire.short
    assert vars(client) == {"is_closed": False}
