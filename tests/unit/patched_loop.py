"""Coroutines that greenlets wait for; run by test_native_loop.py under both libraries."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from helpers import BOUND

from fsdf_engine import green, run_coroutine

mine = contextvars.ContextVar("mine", default=0)


def in_greenlets(*calls):
    """Call in a greenlet each; return what they return or raise."""
    ends = [None] * len(calls)

    def keep(n, call):
        try:
            ends[n] = call()
        except BaseException as error:
            ends[n] = error

    threads = [threading.Thread(target=keep, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    return ends


def test_many_run_at_once_on_one_loop_each_in_its_context():
    arrived, all_there = [], []

    async def meet(n):
        mine.set(n)
        arrived.append(n)
        all_there.append(asyncio.Event()) if not all_there else None
        if len(arrived) == 10:
            all_there[0].set()
        await asyncio.wait_for(all_there[0].wait(), BOUND)
        return mine.get(), id(asyncio.get_running_loop())

    ends = in_greenlets(*[lambda n=n: run_coroutine(meet(n)) for n in range(10)])
    assert [n for n, _ in ends] == list(range(10))
    assert len({loop for _, loop in ends}) == 1
    assert mine.get() == 0


def test_what_it_raises_is_raised_and_the_others_go_on():
    async def fail():
        raise KeyError("no")

    async def work():
        await asyncio.sleep(0.01)
        return "done"

    error, value = in_greenlets(lambda: run_coroutine(fail()), lambda: run_coroutine(work()))
    assert (type(error), value) == (KeyError, "done")


def test_what_is_raised_in_the_greenlet_cancels_it():
    ended, started = green.Event(), green.Event()

    async def hang():
        started.set()
        try:
            await asyncio.sleep(BOUND)
        except asyncio.CancelledError:
            ended.set()
            raise

    here = green.hub()
    waiting = []

    def wait():
        waiting.append(here.current())
        run_coroutine(hang())

    def stop():
        started.wait(BOUND)
        here.call(waiting[0].throw, TimeoutError)

    error, _ = in_greenlets(wait, stop)
    assert type(error) is TimeoutError
    assert ended.wait(BOUND)


def test_code_of_other_greenlets_sees_no_loop():
    started, looked = green.Event(), green.Event()

    async def work():
        started.set()
        while not looked.is_set():
            await asyncio.sleep(0.001)

    def look():
        assert started.wait(BOUND)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        looked.set()
        return "none"

    assert in_greenlets(lambda: run_coroutine(work()), look) == [None, "none"]
