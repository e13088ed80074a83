"""The layer's wire form: calls come back as they were written, values as kombu types them."""

from __future__ import annotations

import datetime
import decimal
import json

import orjson
import pytest
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from fsdf_compat._app import flat
from fsdf_compat._engine import steps
from fsdf_compat._engine.codec import CelerysFlat
from fsdf_compat.canvas import Signature
from fsdf_engine.contracts import Outgoing
from fsdf_engine.testing.codecs import CodecConformance, opened


def body_of(args, kwargs, control, names=()):
    data, leading, count = flat.named((names, 0), args, kwargs)
    more = {"args": leading} if leading else {}
    more |= {"positional": count} if count else {}
    return flat.encoded(data, {**control, **more})


def call_of(body):
    job = opened(CelerysFlat(), Outgoing("q", "id", body))
    return job.codec.arguments(job)


class TestCelerysFlat(CodecConformance):
    changes = {}

    @pytest.fixture
    def codec(self):
        return CelerysFlat()

    @pytest.fixture
    def write(self):
        return lambda args, kwargs, control: Outgoing("q", "id", body_of(args, kwargs, control))

    @pytest.fixture
    def foreign(self):
        return []


@pytest.mark.parametrize(
    ("args", "kwargs", "names"),
    [
        ((1, 2), {}, ("x", "y")),
        ((1,), {"y": 2}, ("x", "y")),
        ((), {"y": 2, "x": 1}, ("x", "y")),
        ((1, 2, 3), {"z": 4}, ("x",)),
        ((1,), {"x": 2}, ("x",)),
        ((1,), {"extra": {"task": "no"}}, ("x",)),
        (({"task_id": "t"},), {}, ("extra",)),
        ((), {}, ()),
    ],
)
def test_a_call_comes_back_as_it_was_written(args, kwargs, names):
    got, named = call_of(body_of(args, kwargs, {"task_id": "t", "task": "n"}, names))
    assert (list(got), list(named.items())) == (list(args), list(kwargs.items()))


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc),
        datetime.date(2026, 1, 31),
        decimal.Decimal("1.10"),
        b"bytes",
        b"\xff",
        1 << 70,
        -(1 << 70),
        [1 << 70, 1.5],
        float("inf"),
        "\ud800",
        {"__type__": 1, "other": 2},
    ],
)
def test_values_are_those_of_kombus_json(value):
    control = {"task_id": "t", "task": "n"}
    for body in (body_of((value,), {}, control, ("x",)), body_of((value,), {}, control)):
        assert call_of(body)[0] == [value]


def test_a_bare_object_is_a_call_by_name():
    assert call_of(b'{"x": 1, "extra": {"y": 2}}') == ([], {"x": 1, "extra": {"y": 2}})
    codec = CelerysFlat()
    codec.only = "the.task"
    assert codec.envelope(b'{"x": 1}') == ({"task": "the.task"}, {"x": 1})


@pytest.mark.parametrize("positional", [-1, 3, "1", None, 1.0])
def test_a_count_that_cannot_be_is_told(positional):
    extra = {"task_id": "t", "task": "n", "positional": positional}
    with pytest.raises(ValueError, match="positional"):
        call_of(json.dumps({"x": 1, "y": 2, "extra": extra}).encode())


def test_what_is_not_json_is_read_only_where_the_app_accepts_it():
    body = flat.encoded(
        {}, {"task_id": "t", "task": "n", "content": flat._content((1,), {}, "pickle")}
    )
    job = opened(CelerysFlat(), Outgoing("q", "id", body))
    with pytest.raises(ContentDisallowed):
        job.codec.arguments(job)
    job = opened(CelerysFlat(["json", "pickle"]), Outgoing("q", "id", body))
    assert job.codec.arguments(job) == ((1,), {})


VALUES = pytest.mark.parametrize(
    "value",
    [
        [{"task": "n", "args": [], "options": {"task_id": "t", "n": 1.5, "deep": [None, [True]]}}],
        [{"at": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)}],
        [[decimal.Decimal("1.5")], {"a": {"b": float("inf")}}],
        {"a": [1 << 70]},
        [{"a": "\ud800"}],
    ],
)


@VALUES
def test_values_in_values_are_those_of_kombus_json_also_in_headers(value):
    control = {"task_id": "t", "task": "n", "headers": {"chain": value}}
    job = opened(CelerysFlat(), Outgoing("q", "id", body_of((value,), {}, control)))
    assert job.codec.arguments(job)[0] == [value]
    assert job.extra["headers"]["chain"] == value


def test_a_chain_is_written_in_the_short_form_and_what_has_no_end_is_refused():
    links = [{"task": "n", "args": [], "kwargs": {}, "options": {"task_id": "t"}}]
    body = flat.encoded({}, {"task_id": "t", "headers": {"chain": links}})
    assert b'"chain":[{"task":"n","args":[],' in body
    for inner in (Signature("n"), {"task": "n", "x": (1,)}, {"n": 1}):
        assert steps.written([inner]) == json.dumps(inner, separators=(",", ":"))
    endless: list = []
    endless.append(endless)
    with pytest.raises(EncodeError, match="Circular"):
        flat.encoded({"a": endless}, {"task_id": "t"})


@VALUES
def test_steps_of_a_chain_are_read_one_by_one_as_they_were(value):
    sent = [{"task": "a\nb", "args": ["\u2028"]}, {"task": "n", "args": [value]}, {}]
    lines = steps.written(sent)
    assert orjson.loads(orjson.dumps(lines)) == lines
    assert steps.opened(lines) == sent
    while sent:
        step, lines = steps.after(lines)
        assert step == sent.pop()
        assert steps.opened(lines) == sent


@pytest.mark.parametrize("line", ['{"a":{"__type__":"money","__value__":"x"}}', "{", "", "3"])
def test_a_step_that_cannot_be_read_is_refused_and_those_beside_it_are_known(line):
    last, next = '{"task":"n","options":{"task_id":"t"}}', '{"task":"m"}'
    with pytest.raises(DecodeError, match="the next step of the chain"):
        steps.after(f"{last}\n{line}")
    found = steps.opened(f"{last}\n{line}\n{next}")
    assert [step["task"] for step in found if "task" in step] == ["n", "m"]
    assert steps.after(f"{line}\n{next}") == ({"task": "m"}, line)


def test_a_json_of_the_users_may_have_lines(monkeypatch):
    step = {"task": "n", "args": ["a\nb", 1]}
    monkeypatch.setattr(steps, "text_of", lambda value: json.dumps(value, indent=1).encode())
    assert steps.opened(steps.written([step, step])) == [step, step]
