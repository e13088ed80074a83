"""The wire format is frozen: what these cases say must stay true for messages already queued."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from pathlib import Path

import pytest

from fsdf_engine.contracts import Delivery, Job, Plan
from fsdf_engine.core.binding import Binding
from fsdf_engine.errors import ArgumentError
from fsdf_engine.message import FLAT, encode

CASES = json.loads((Path(__file__).parent / "envelope.json").read_text())


def function(source):
    scope = {}
    exec(source, scope)
    return scope["f"]


def sent(fn, *args, **kwargs):
    data, leading = Binding(fn).name(args, kwargs)
    extra = {"task_id": "ID"}
    if leading:
        extra["args"] = leading
    return encode(data, extra)


def received(fn, body):
    return FLAT.arguments(opened(fn, body))


def opened(fn, body):
    job = Job()
    job.plan = Plan("", "q", None, None, Binding(fn).bind)
    job.delivery = Delivery((0, 0), body)
    job.extra, job.kept = FLAT.envelope(body)
    return job


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_body_is_frozen_and_binds_back(case):
    fn = function(case["function"])
    body = sent(fn, *case["args"], **case["kwargs"])
    assert json.loads(body) == case["body"]
    assert list(json.loads(body)) == list(case["body"]), "the order of keys is part of it"
    args, kwargs = received(fn, body)
    signature = Binding(fn).signature
    assert signature.bind(*args, **kwargs) == signature.bind(*case["args"], **case["kwargs"])


def test_bare_body_of_any_client_binds():
    assert received(lambda a, b=1: None, b'{"a": 3, "b": 6}') == ((), {"a": 3, "b": 6})
    assert received(lambda a, b=1: None, b'{"a": 3}') == ([], {"a": 3})


def test_extra_without_task_id_or_task_is_a_plain_argument():
    body = b'{"extra": {"colour": "red"}}'
    assert received(lambda extra: None, body) == ((), {"extra": {"colour": "red"}})


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (
            datetime.datetime(2026, 1, 31, 12, 30),
            {"__type__": "datetime", "__value__": "2026-01-31T12:30:00"},
        ),
        (datetime.date(2026, 1, 31), {"__type__": "date", "__value__": "2026-01-31"}),
        (datetime.time(12, 30), {"__type__": "time", "__value__": "12:30:00"}),
        (decimal.Decimal("1.10"), {"__type__": "decimal", "__value__": "1.10"}),
        (uuid.UUID(int=7), {"__type__": "uuid", "__value__": {"hex": uuid.UUID(int=7).hex}}),
        (b"\x00\xff", {"__type__": "base64", "__value__": "AP8="}),
        ({1}, {"__type__": "set", "__value__": [1]}),
    ],
)  # fmt: skip
def test_typed_values_travel_in_kombus_form(value, wire):
    def f(a):
        pass

    body = sent(f, a=value)
    assert json.loads(body)["a"] == wire
    assert received(f, body)[1]["a"] == value
    assert received(f, sent(f, a={"deep": [value]}))[1]["a"] == {"deep": [value]}


def test_an_object_that_looks_like_a_typed_value_and_was_never_escaped_still_decodes():
    assert received(lambda a: None, b'{"a":{"__type__":"date","__value__":"2026-01-31"}}') == (
        (),
        {"a": datetime.date(2026, 1, 31)},
    )
    for told in ({"__type__": "colour", "__value__": 1}, {"__type__": ["a"], "__value__": 1}):
        assert received(lambda a: None, json.dumps({"a": told}).encode()) == ((), {"a": told})
    bare = b'{"__type__":"set","__value__":[1]}'
    assert received(lambda __type__, __value__: None, bare) == (
        (),
        {"__type__": "set", "__value__": [1]},
    )


@pytest.mark.parametrize("value", [{(1, 2)}, {frozenset({1})}, {((1,), frozenset({(2,)}))}])
def test_sets_of_what_json_cannot_hash_come_back(value):
    assert received(lambda a: None, sent(lambda a: None, value))[1]["a"] == value


def test_headers_travel_as_arguments_do():
    headers = {"day": datetime.date(2026, 1, 31), "own": {"__type__": "set", "__value__": 3}}
    job = opened(lambda: None, encode({}, {"task_id": "ID", "headers": headers}))
    FLAT.arguments(job)
    assert job.extra["headers"] == headers


def test_arguments_that_cannot_be_decoded_still_tell_whose_they_are():
    body = b'{"a":{"__type__":"date","__value__":"soon"},"extra":{"task_id":"x","reply":"r"}}'
    job = opened(lambda a: None, body)
    assert job.extra == {"task_id": "x", "reply": "r"}
    with pytest.raises(ValueError, match="'a' cannot be decoded"):
        FLAT.arguments(job)


def test_annotations_decode_what_a_foreign_client_sent_plainly():
    def f(day: datetime.date, price: decimal.Decimal):
        pass

    f.__annotations__ = {"day": datetime.date, "price": decimal.Decimal}
    _, kwargs = received(f, b'{"day": "2026-01-31", "price": "1.10"}')
    assert kwargs == {"day": datetime.date(2026, 1, 31), "price": decimal.Decimal("1.10")}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b'"x"', b"null", b"3", b"\xff\xfe{}"])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(ValueError):
        FLAT.envelope(body)


@pytest.mark.parametrize(
    ("source", "args", "kwargs", "named"),
    [
        ("def f(a, b): pass", (1,), {}, "'b'"),
        ("def f(a): pass", (1, 2), {}, "too many"),
        ("def f(a): pass", (), {"a": 1, "c": 2}, "'c'"),
        ("def f(a, /, **kw): pass", (1,), {"a": 2}, "'a'"),
        ("def f(*rest, **kw): pass", (1,), {"rest": 2}, "'rest'"),
    ],
)
def test_wrong_calls_fail_at_push_and_name_the_parameter(source, args, kwargs, named):
    with pytest.raises(ArgumentError, match=named):
        sent(function(source), *args, **kwargs)


@pytest.mark.parametrize("value", [object(), float("nan"), 1 << 70, {1: 2}, [object()], lambda: 0])
def test_values_without_json_form_fail_at_push_and_name_the_parameter(value):
    with pytest.raises(ArgumentError, match="'price'"):
        sent(lambda price: None, price=value)


@pytest.mark.parametrize("body", [b'{"a": 1}', b'{"a": 1, "b": 2, "c": 3}'])
def test_messages_that_do_not_fit_say_what_they_have(body):
    with pytest.raises(ArgumentError, match="the message has"):
        received(lambda a, b: None, body)


def test_two_values_for_one_parameter_are_refused():
    body = b'{"a": 1, "extra": {"task_id": "x", "args": [2]}}'
    with pytest.raises(ArgumentError, match="both give 'a'"):
        received(lambda a: None, body)
