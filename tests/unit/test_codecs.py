"""The codecs themselves: the engine's own form, and one of a layer."""

from __future__ import annotations

import json

import pytest
import toy_wire

from fsdf_engine.contracts import Outgoing
from fsdf_engine.errors import ArgumentError
from fsdf_engine.message import FLAT, encode
from fsdf_engine.testing.codecs import CodecConformance, opened


class TestFlat(CodecConformance):
    @pytest.fixture
    def codec(self):
        return FLAT

    @pytest.fixture
    def write(self):
        def write(args, kwargs, control):
            more = {"args": list(args)} if args else {}
            return Outgoing("here", "id", encode(dict(kwargs), {**control, **more}))

        return write

    @pytest.fixture
    def foreign(self):
        return []


class TestListed(CodecConformance):
    @pytest.fixture
    def codec(self):
        return toy_wire.Listed()

    @pytest.fixture
    def write(self):
        return toy_wire.message

    @pytest.fixture
    def foreign(self):
        return [b'{"x": 1}', b'["other", 1]', b"[]"]


def flat(body):
    return opened(FLAT, Outgoing("here", "id", body))


def anew(job, **changes):
    counts = {"sends": 1, "attempt": 0, "crashes": 0, "pushes": None}
    return json.loads(FLAT.again(job, {"task_id": job.id or "new", **counts, **changes}).body)


def test_a_bare_message_sent_anew_has_an_envelope():
    assert anew(flat(b'{"a":3}')) == {"a": 3, "extra": {"task_id": "new", "sends": 1}}
    told = anew(flat(b'{"a":3,"extra":{"x":1}}'))
    assert told == {"a": 3, "extra": {"task_id": "new", "sends": 1, "param": {"x": 1}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"n":123456789012345678901234567890,"f":0.1,"t":"漢"}',
        '{"d":{"__type__":"date","__value__":"2026-01-31"},"e":{"__type__":"set","__value__":[1]}}',
        '{"o":{"__type__":"object","__value__":[["__type__","date"],["__value__","x"]]}}',
    ],
)
def test_values_are_sent_anew_as_they_came(text):
    data = anew(flat(text.encode()))
    del data["extra"]
    assert data == json.loads(text)


def test_new_arguments_stand_in_place_of_all_former_ones():
    job = flat(b'{"a":3,"extra":{"task_id":"x","args":[1],"param":{"old":1}}}')
    told = anew(job, args=(7, {1}), kwargs={"b": b"x", "extra": 5})
    assert told == {
        "b": {"__type__": "base64", "__value__": "eA=="},
        "extra": {
            "task_id": "x", "sends": 1, "args": [7, {"__type__": "set", "__value__": [1]}],
            "param": 5,
        },
    }  # fmt: skip
    assert anew(job, kwargs={"b": 1}) == {"b": 1, "extra": {"task_id": "x", "sends": 1}}
    assert anew(job, args=[2]) == {"extra": {"task_id": "x", "sends": 1, "args": [2]}}
    odd = {"__type__": "set", "__value__": [1]}
    assert anew(job, kwargs=odd) == {**odd, "extra": {"task_id": "x", "sends": 1}}
    with pytest.raises(ArgumentError, match="JSON form"):
        anew(job, kwargs={"b": object()})
