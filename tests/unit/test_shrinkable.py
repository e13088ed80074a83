"""The elastic executor on its own."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import subprocess
import sys
import threading
import weakref

import pytest
from helpers import BOUND, until

from fsdf_engine.errors import ConfigurationError
from fsdf_engine.shrinkable import ShrinkablePool


@pytest.fixture
def pool():
    with ShrinkablePool(4) as pool:
        yield pool


def test_futures_give_values_and_errors(pool):
    assert pool.submit(divmod, 7, 2).result(BOUND) == (3, 1)
    assert pool.submit(int, "11", base=2).result(BOUND) == 3
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(BOUND)


def test_map_keeps_order(pool):
    assert list(pool.map(lambda n: n * n, range(500))) == [n * n for n in range(500)]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_base_exceptions_cost_no_thread(pool, kind):
    def fail():
        raise kind

    futures = [pool.submit(fail) for _ in range(8)]
    for future in futures:
        assert type(future.exception(BOUND)) is kind
    meet = threading.Barrier(4)
    assert sorted(pool.map(lambda _: meet.wait(BOUND), range(4))) == [0, 1, 2, 3]


def test_at_most_max_workers_calls_run_at_once(pool):
    meet, started = threading.Event(), []
    futures = [pool.submit(lambda: (started.append(1), meet.wait(BOUND))) for _ in range(6)]
    until(lambda: len(started) == 4)
    assert pool.threads() == 4
    meet.set()
    concurrent.futures.wait(futures, BOUND)
    assert len(started) == 6


def test_threads_start_only_as_needed_and_end_when_idle():
    with ShrinkablePool(1_000_000, keep_alive=0.01) as pool:
        assert pool.threads() == 0
        go = threading.Event()
        futures = [pool.submit(go.wait, BOUND) for _ in range(30)]
        until(lambda: pool.threads() == 30)
        go.set()
        assert all(future.result(BOUND) for future in futures)
        until(lambda: pool.threads() == 0)
        assert pool.submit(int).result(BOUND) == 0


def test_caller_context_reaches_the_call_and_does_not_come_back(pool):
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)

    def change():
        before = variable.get()
        variable.set(before + 1)
        return before

    assert [pool.submit(change).result(BOUND) for _ in range(10)] == [7] * 10
    assert variable.get() == 7


def test_shutdown_waits_for_everything_and_refuses_more():
    pool, ran = ShrinkablePool(2), []
    for n in range(100):
        pool.submit(ran.append, n)
    pool.shutdown()
    assert ran == list(range(100)) or sorted(ran) == list(range(100))
    assert pool.threads() == 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    pool.shutdown()


def test_shutdown_cancels_what_has_not_started():
    pool, go, started = ShrinkablePool(1), threading.Event(), threading.Event()
    first = pool.submit(lambda: (started.set(), go.wait(BOUND)))
    rest = [pool.submit(int) for _ in range(5)]
    assert started.wait(BOUND)
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest)
    assert not first.done()
    go.set()
    first.result(BOUND)
    until(lambda: pool.threads() == 0)


def test_cancelled_future_does_not_run(pool):
    go = threading.Event()
    busy = [pool.submit(go.wait, BOUND) for _ in range(4)]
    until(lambda: all(future.running() for future in busy))
    ran = []
    future = pool.submit(ran.append, 1)
    assert future.cancel()
    go.set()
    pool.submit(int).result(BOUND)
    assert not ran


def test_pool_that_nobody_holds_ends_its_threads():
    pool = ShrinkablePool(2)
    pool.submit(int).result(BOUND)
    slots, gone = pool._slots, weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    until(lambda: not slots.all)


def test_failed_call_leaves_no_cycle(pool):
    """What a failed call held is freed at once, not by a later collection."""

    class Thing:
        pass

    def fail(thing):
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        thing = Thing()
        gone = weakref.ref(thing)
        future = pool.submit(fail, thing)
        assert future.exception(BOUND)
        del thing, future
        until(lambda: gone() is None)
    finally:
        gc.enable()


def test_what_was_submitted_runs_before_the_interpreter_ends():
    script = """
import threading
from fsdf_engine.shrinkable import ShrinkablePool
pool = ShrinkablePool(2)
for n in range(6):
    pool.submit(lambda n=n: (threading.Event().wait(0.05), print(f"{n}\\n", end="", flush=True)))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert sorted(out.stdout.split()) == ["0", "1", "2", "3", "4", "5"], out.stderr


@pytest.mark.parametrize("size", [0, -3, "4"])
def test_size_is_a_positive_whole_number(size):
    with pytest.raises(ConfigurationError, match="whole number"):
        ShrinkablePool(size)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system cannot fork")
def test_forked_child_starts_empty():
    script = """
import os, threading
from fsdf_engine.shrinkable import ShrinkablePool
pool = ShrinkablePool(2)
pool.submit(int).result(10)
go = threading.Event()
held = [pool.submit(go.wait, 10) for _ in range(5)]
if (child := os.fork()) == 0:
    os._exit(pool.submit(lambda: 42).result(10))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go.set()
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "42", out.stderr
