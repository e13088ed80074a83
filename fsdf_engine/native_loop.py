"""Coroutines for code that cannot await: above all in greenlets, whose thread has no room for a
loop each."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from . import green

__all__ = ["run_coroutine"]
log = logging.getLogger("fsdf.green")
T = TypeVar("T")
# (process id, when the loop is there, the loop)
_shared: tuple[int, green.Event, list[asyncio.AbstractEventLoop]] | None = None
_sharing = green.native_lock()


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns. Blocks the thread, or under a hub the greenlet only.

    Under a hub it runs on the one loop of this process that has a thread of the operating system of
    its own, so many run at once; else on a loop of its own. What is raised in the greenlet
    meanwhile is raised here, and cancels it.
    """
    if not green.active_hub():
        return asyncio.run(coroutine)
    loop, done, tasks = _loop(), green.Event(), list[asyncio.Task[T]]()

    def begin() -> None:
        tasks.append(task := loop.create_task(coroutine))
        task.add_done_callback(lambda _: done.set())

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    loop.call_soon_threadsafe(begin, context=copy_context())
    try:
        done.wait()
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        raise
    return tasks[0].result()


def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of greenlets' coroutines; its thread starts at the first call."""
    global _shared
    with _sharing:
        if _shared is None or _shared[0] != os.getpid():
            _shared = os.getpid(), green.Event(), []
            green.native_thread(partial(_live, *_shared[1:]), "fsdf-loop")
        _, ready, made = _shared
    ready.wait()
    return made[0]


def _live(ready: green.Event, made: list[asyncio.AbstractEventLoop]) -> None:
    made.append(loop := asyncio.new_event_loop())
    asyncio.set_event_loop(loop)
    ready.set()
    while True:
        try:
            loop.run_forever()
            log.warning("user code has stopped the loop of all coroutines; it goes on")
        except BaseException:  # out of a task or callback that user code has made itself
            log.exception("an error left the loop of all coroutines; it goes on")
