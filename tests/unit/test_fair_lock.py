"""Turns are taken in the order of arrival, and nobody who gives up takes one with him."""

from __future__ import annotations

import threading

import pytest

from fsdf_engine.brokers.fair_lock import FairLock

BOUND = 20.0


def arrive(line: FairLock[str], count: int) -> tuple[list[int], list[threading.Thread]]:
    """Start threads that wait for their turn, one after the other."""
    order: list[int] = []

    def turn(n: int) -> None:
        thing = line.take(BOUND)
        order.append(n)
        line.give(thing)

    threads = []
    for n in range(count):
        threads.append(threading.Thread(target=turn, args=(n,)))
        threads[-1].start()
        while len(line._waiting) <= n and threads[-1].is_alive():
            pass
    return order, threads


def test_who_came_first_is_first() -> None:
    line = FairLock("x")
    held = line.take(BOUND)
    order, threads = arrive(line, 10)
    line.give(held)
    for thread in threads:
        thread.join(BOUND)
    assert order == list(range(10))


def test_a_loop_that_takes_and_gives_starves_nobody() -> None:
    line = FairLock("x")
    held = line.take(BOUND)
    order, [thread] = arrive(line, 1)
    line.give(held)
    held = line.take(BOUND)
    assert order == [0]  # the loop's second turn came after the thread's only one
    line.give(held)
    thread.join(BOUND)


def test_a_turn_that_does_not_come_is_an_error_and_the_line_goes_on() -> None:
    line = FairLock("x")
    held = line.take(BOUND)
    with pytest.raises(TimeoutError):
        line.take(0.01)
    line.give(held)
    assert line.take(BOUND).thing == "x"


def test_what_is_dropped_is_mended_and_goes_to_the_next() -> None:
    mended: list[str] = []
    line = FairLock("x", mended.append)
    held = line.take(BOUND)
    order, [thread] = arrive(line, 1)
    del held
    thread.join(BOUND)
    assert (order, mended) == ([0], ["x"])
    line.take(BOUND)
    held = line.take(BOUND)
    assert (held.thing, mended) == ("x", ["x", "x"])


def test_many_threads_never_have_it_at_once() -> None:
    line, inside, most = FairLock("x"), [], []

    def loop() -> None:
        for _ in range(200):
            thing = line.take(BOUND)
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            line.give(thing)

    threads = [threading.Thread(target=loop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert (len(most), max(most)) == (1600, 1)
