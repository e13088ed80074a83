"""Tasks that are interrupted in the children of a process pool, which import this module."""

from __future__ import annotations

import asyncio
import functools
import time

from process_tasks import value_sink

from fsdf_engine.contracts import Outgoing, Plan
from fsdf_engine.core.binding import Binding
from fsdf_engine.core.context import current_job
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.core.run import compile_plan
from fsdf_engine.errors import Retry, SoftTimeLimit

QUEUE = "limited"
LONG = 60.0  # seconds; only a failing test reaches it
ATTEMPTS = {"three_times": 2, "retry_once": 1}


class Own(Exception):
    """An exception that parent and child both know."""


def note(path: str, text: str) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode() + b"\n")


def noop() -> None:
    pass


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def held(path: str) -> None:
    note(path, "started")
    time.sleep(LONG)


def tidy(path: str) -> None:
    try:
        held(path)
    except SoftTimeLimit:
        note(path, "tidied")


def tidy_for_ever(path: str) -> None:
    tidy(path)
    time.sleep(LONG)


def compute() -> None:
    sum(range(10**12))


def three_times(path: str) -> None:
    held(path)


def retry_once() -> None:
    """Wait longer for the second attempt than one may take."""
    if current_job.get().attempt == 0:
        raise Retry(delay=0.8)


def push_twice(path: str) -> None:
    """Push; the answer comes after the soft limit. Then push again, in the same stream."""
    job = current_job.get()
    note(path, "started")
    try:
        job.owner.commit(job, [Outgoing("next", "first", b"1")])
        time.sleep(LONG)
    except SoftTimeLimit:
        job.owner.commit(job, [Outgoing("next", "second", b"2")])


async def a_tidy(path: str) -> None:
    note(path, "started")
    try:
        await asyncio.sleep(LONG)
    except SoftTimeLimit:
        note(path, "tidied")
        await asyncio.sleep(0)


async def a_held(path: str) -> None:
    note(path, "started")
    await asyncio.sleep(LONG)


@functools.lru_cache
def resolve(queue: str, name: str, timeout: float = 0.0, soft: float = 0.0) -> Plan:
    """Return the plan of a function of this module."""
    fn = globals()[name]
    policy = RetryPolicy(ATTEMPTS.get(name, 0))
    bind = Binding(fn).bind
    limits = {"timeout": timeout, "soft": soft}
    plan = Plan(name, queue, None, None, bind, (value_sink,), policy=policy, **limits)
    return compile_plan(plan, fn)
