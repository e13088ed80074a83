"""A short storm over a Celery project; `python -m celery_storm` lets a long one rage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery_storm.verdict import Expected, Seen, judge

ROOT = Path(__file__).parent.parent.parent
LOST = type("WorkerLostError", (Exception,), {})
ONE = {"a": Expected(2), "b": Expected(3, sent_by=["a"])}
RIGHT = [("start", "add", "a", "0", "0"), ("end", "add", "a", "0", "0"),
         ("start", "add", "b", "0", "0"), ("end", "add", "b", "0", "0")]  # fmt: skip


def verdict(lines=RIGHT, *, late=True, expected=ONE, told=None, open=(), claims=0, **stored):
    stored = {"a": 2, "b": 3, **stored}
    told = stored if told is None else told
    return judge(expected, Seen(lines, stored, told, {}, claims, open, 1, 8, late))


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "ack"), [("prefork", "late"), ("threads", "early")])
def test_workers_and_children_that_are_killed_leave_nobody_waiting(pool, ack, redis_server):
    """In a process of its own, where `celery` is fsdf; with a server of its own."""
    more = ["--tasks", "300", "--kills", "5", "--lease", "2", "--seed", "7"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.run(
        [sys.executable, "-m", "celery_storm", pool, ack, *more],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_judge_of_a_storm_finds_what_is_wrong():
    assert verdict().faults == []
    again = [("start", "add", "a", "0", "1")]
    assert verdict([*again, *RIGHT]).faults == []  # after a lease that was lost
    assert verdict([RIGHT[0], *RIGHT]).faults == ["a has run 2 times, 2 of them for no lost lease"]
    assert verdict([*again, *RIGHT], late=False).faults
    assert verdict(RIGHT[:2]).faults == ["b has a value and has not ended"]
    assert verdict(a=4).faults == ["a has ended with 4"]
    assert verdict(told={"a": 2}).faults
    assert verdict(open=["a"]).faults == ["the chord of a is not over"]


def test_the_judge_of_a_storm_counts_what_was_lost_early():
    lost = {"a": LOST("a"), "b": LOST("a")}
    found = verdict(RIGHT[:1], late=False, **lost)
    assert (found.lost, found.behind, found.faults) == (1, 1, [])
    assert verdict(RIGHT[:1], late=True, **lost).faults == ["1 were lost"]
    assert verdict(RIGHT[:1], late=False, told={}, **lost).faults


def test_the_judge_of_a_storm_wants_bodies_twice_to_be_explained():
    expected = {**ONE, "c": Expected(5, header=["a", "b"])}
    body = [("start", "total", "c", "0", "0"), ("end", "total", "c", "0", "0")]
    assert verdict([*RIGHT, *body, *body], expected=expected, claims=1, c=5).faults == []
    assert verdict([*RIGHT, *body, *body], expected=expected, claims=0, c=5).faults
