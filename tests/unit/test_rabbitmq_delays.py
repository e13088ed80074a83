"""How what is delayed on RabbitMQ goes through its rungs, as the exchanges hand it on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdf_engine.brokers import rabbitmq_buffer
from fsdf_engine.brokers.amqp_client import Received
from fsdf_engine.brokers.rabbitmq_buffer import Buffer
from fsdf_engine.brokers.rabbitmq_leases import Tags
from fsdf_engine.brokers.rabbitmq_message import DUE, MORE, delayed, more_of
from fsdf_engine.brokers.rabbitmq_names import (
    FORMER,
    LONGEST,
    MOST_TENTHS,
    QUICK,
    RUNGS,
    after,
    end_at,
    first,
    former,
    gate,
    key_at,
    lasts,
    level_of,
    long,
    needs,
    quick,
    quick_lasts,
    valid,
    way,
)
from fsdf_engine.brokers.rabbitmq_server import Server, Shape
from fsdf_engine.errors import LARGEST, ConfigurationError
from fsdf_engine.green import Event

# Of delays from so many seconds on: how early the walk ends, at least and at most.
EARLY = ((12.8, 0.8, 1.6), (3.2, 0.05, 0.45), (0.0, 0.05, 0.15))


def matches(pattern, key):
    """Say whether a topic exchange takes a key by a pattern; `#` is at its end only."""
    words, told = key.split("."), pattern.split(".")
    if told[-1] == "#":
        told.pop()
        words = words[: len(told)]
    return len(words) == len(told) and all(p in ("*", w) for p, w in zip(told, words))


def long_walk(key):
    """Return the rungs that the exchanges lead a message to."""
    level, passed = 0, []
    while True:
        after = [n for n in range(RUNGS) if level_of(n) >= level and matches(key_at(level, n), key)]
        out = level > 0 and matches(end_at(level), key)
        assert len(after) + out == 1  # else it would be lost, or be there twice
        if out:
            return passed
        passed += after
        level = level_of(after[0]) + 1


def walk(exchange, key):
    """Return how long a message is in each rung that it passes on its way to `q`."""
    if exchange == gate("q", 0):
        passed = long_walk(key)
        assert needs("q", exchange, key) == (0, passed[-1] + 1)
        return [lasts(n) for n in passed]
    names = {quick("q", n): n for n in range(QUICK)}
    passed = [names[exchange]] if exchange else []
    assert all(first(n) for n in passed)
    if key != "q":
        assert not first(names[key])
        passed.append(names[key])
    assert needs("q", exchange, key) == (max(passed, default=-1) + 1, 0)
    return [quick_lasts(n) for n in passed]


@given(st.integers(0, 127) | st.integers(16, MOST_TENTHS // 8).map(lambda n: 8 * n))
def test_walk_lasts_as_long_as_it_should(tenths):
    passed = walk(*way("q", tenths))
    assert sum(passed) == tenths
    assert len(passed) <= 2 or tenths >= 4096


@given(st.integers(0, 127) | st.integers(16, MOST_TENTHS // 8).map(lambda n: 8 * n))
def test_rungs_after_the_first_are_known(tenths):
    exchange, key = way("q", tenths)
    if exchange == gate("q", 0):
        passed = [long("q", n) for n in long_walk(key)]
    else:
        passed = [name for name in (exchange, key) if name not in ("", "q")]
    assert after("q", exchange, key) == (passed[1:] if exchange else [])


def test_what_is_no_walk_needs_no_rungs():
    assert way("q", 0) == ("", "q")
    assert needs("q", "", "q") == needs("q", "", "q.dead") == (0, 0)


def test_longest_walk_is_possible():
    exchange, key = way("q", MOST_TENTHS)
    assert sum(walk(exchange, key)) == MOST_TENTHS
    assert needs("q", exchange, key) == (0, RUNGS)


def test_names_of_rungs_differ():
    names = [
        *(quick("q", n) for n in range(QUICK)),
        *(long("q", n) for n in range(RUNGS)),
        *(gate("q", level) for level in range(10)),
        *(former("q", k) for k in range(FORMER)),
    ]
    assert len(set(names)) == len(names)
    assert (quick("q", 0), quick("q", 7), quick("q", 22), long("q", 8)) == (
        "q.delay.a.1", "q.delay.z.1", "q.delay.b.1", "q.delay.1.2",
    )  # fmt: skip
    for name in names:
        with pytest.raises(ConfigurationError, match="beside"):
            valid(name)


@given(st.floats(0.001, LONGEST))
def test_walk_ends_a_little_before_the_message_is_due(delay):
    told = delayed("q", b"", {"headers": {}}, delay, 1000.0)
    assert abs(told.properties["headers"][DUE] - (1000.0 + delay) * 1000) <= 0.5
    _, least, most = next(early for early in EARLY if delay >= early[0])
    if tenths := sum(walk(told.exchange, told.routing_key)):
        assert least - 1e-6 <= delay - tenths / 10 < most + 1e-6
    else:
        assert delay < 0.15 + 1e-6


def test_what_is_delayed_for_longer_than_a_walk_goes_on_after_it_and_is_not_early():
    told = delayed("q", b"", {"headers": {}}, LONGEST + 5.0, 1000.0)
    assert sum(walk(told.exchange, told.routing_key)) == MOST_TENTHS
    assert told.properties["headers"] == {MORE: "5.000"}
    assert more_of(told.properties["headers"]) == 5.0


@given(
    st.sampled_from(["inf", "-inf", "nan", "soon", "", "-1", "9" * 400, b"\xff", None, [1], 2**62])
    | st.floats(allow_nan=True).filter(lambda seconds: not 0 < seconds <= LARGEST)
)
def test_a_delay_that_nobody_can_have_asked_for_is_none(more):
    assert more_of({MORE: more}) == 0.0


def test_what_is_due_one_after_the_other_is_handed_out_together(monkeypatch):
    """But the first at once."""
    now = 1000.0
    monkeypatch.setattr(rabbitmq_buffer, "time", SimpleNamespace(time=lambda: now))
    buffer = Buffer("q", Event())
    buffer.begin(1, Shape(), Server(), Tags(), dict)
    for tag, due in enumerate((1_000_100, 1_000_103, 1_000_106, 1_000_200)):
        buffer.put(Received(tag + 1, False, b"%d" % tag, {DUE: due}, f"{tag}", None, None, None))

    def taken():
        return [told.body for told, _ in buffer.take(5, 1000)[0]] if buffer else []

    counts = {}
    for now in (1000.05, 1000.1, 1000.103, 1000.106, 1000.112, 1000.15, 1000.2):
        counts[now] = taken()
    assert counts == {
        1000.05: [], 1000.1: [b"0"], 1000.103: [], 1000.106: [], 1000.112: [b"1", b"2"],
        1000.15: [], 1000.2: [b"3"],
    }  # fmt: skip
