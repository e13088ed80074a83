"""Frames of what is published: byte for byte what amqpstorm's library would have made of it."""

from __future__ import annotations

from datetime import datetime, timezone

from amqp_properties import properties_of
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from fsdf_engine.brokers.amqp_client import Publishing
from fsdf_engine.brokers.amqp_frames import bodies_of, header_of

CHANNEL, FRAME_MAX = 3, 64
ids = st.text(min_size=1, max_size=300).filter(lambda text: len(text.encode()) < 256)
properties = properties_of(ids, 2**32)


@given(properties, st.binary(max_size=200))
def test_header_and_body_are_as_the_library_writes_them(told, sent):
    item = Publishing("q", sent, told)
    made = dict(told)
    if "timestamp" in made:
        made["timestamp"] = datetime.fromtimestamp(made["timestamp"], timezone.utc)
    expected = header.ContentHeader(
        body_size=len(sent), properties=commands.Basic.Properties(**made)
    )
    assert header_of(CHANNEL, item) == frame.marshal(expected, CHANNEL)
    size = FRAME_MAX - 8
    parts = [body.ContentBody(sent[at : at + size]) for at in range(0, len(sent), size)]
    assert list(bodies_of(CHANNEL, sent, FRAME_MAX)) == [frame.marshal(p, CHANNEL) for p in parts]


def test_what_has_other_properties_or_a_long_id_is_left_to_the_library():
    assert header_of(CHANNEL, Publishing("q", b"", {"message_id": "m" * 256})) is None
    told = {"message_id": "m", "headers": {"a": 1}}
    assert header_of(CHANNEL, Publishing("q", b"", told)) is None
