"""An elastic `concurrent.futures.Executor` on the slots of the thread pool."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

from .core.slots import Slot, Slots
from .pools.threads import ThreadCarrier

__all__ = ["ShrinkablePool"]

P = ParamSpec("P")
T = TypeVar("T")


_Call: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class ShrinkablePool(Executor):
    """Runs calls in up to `max_workers` threads, each in a copy of its caller's context.

    A thread is started only when none is idle, and ends after `keep_alive` idle seconds; so
    `max_workers` may be a million. What was submitted runs before the interpreter ends.
    """

    def __init__(self, max_workers: int, keep_alive: float = 60.0) -> None:
        self._slots: Slots[_Call] = Slots(
            max_workers, keep_alive, ThreadCarrier("fsdf-shrinkable"), _run
        )
        self._max_workers = max_workers  # under the name that the standard library's executors have
        self._guard = threading.Lock()  # between submit and shutdown
        self._shut = False
        weakref.finalize(self, _end, self._slots)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` in a thread; never blocks.

        Raises:
            RuntimeError: the pool is shut down.
        """
        future: Future[T] = Future()
        call = future, partial(copy_context().run, fn, *args, **kwargs)
        with self._guard:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._slots.submit((call,))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; with `wait` block until everything submitted has run."""
        with self._guard:
            self._shut = True
        if cancel_futures:
            for future, _ in self._slots.withdraw(len(self._slots.items)):
                future.cancel()
        self._slots.close(None if wait else 0.0)

    def threads(self) -> int:
        """Count the threads there are now."""
        return len(self._slots.all)


def _run(slot: Slot, call: _Call) -> None:
    future, fn = call
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = fn()
    except BaseException as error:
        future.set_exception(error)
        del call, future, fn  # else the traceback's frame and the future are a cycle
    else:
        future.set_result(value)


def _end(slots: Slots[_Call]) -> None:
    """Let the slots end when their pool was collected; at the interpreter's end, wait for them."""
    slots.close(0.0 if threading.main_thread().is_alive() else None)
