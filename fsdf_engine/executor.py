"""A pool in the threads of a `concurrent.futures.Executor` of the user's."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from functools import partial

from .contracts import Job
from .core.slots import Retired, Slot
from .errors import ConfigurationError
from .pools.base import SlotPool
from .pools.threads import ThreadCarrier

__all__ = ["ExecutorPool"]

TURN = 0.05  # seconds of runs after which a slot gives its thread to what waits for one
_ELSEWHERE = {"ProcessPoolExecutor", "InterpreterPoolExecutor"}  # and what derives from them
_pools: weakref.WeakValueDictionary[int, ExecutorPool] = weakref.WeakValueDictionary()


class ExecutorCarrier(ThreadCarrier):
    """A call of the executor per slot."""

    lose: Callable[[Slot, BaseException], None]

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor

    def start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        slot.parker = threading.Lock()
        slot.parker.acquire()
        future = self._executor.submit(self._begin, slot, live)
        future.add_done_callback(partial(self._ended, slot))

    def _begin(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        slot.handle, slot.since = threading.current_thread(), time.monotonic()
        live(slot)

    def _ended(self, slot: Slot, future: Future[None]) -> None:
        if slot.handle is None:
            error = CancelledError() if future.cancelled() else future.exception()
            self.lose(slot, error or CancelledError())


class ExecutorPool(SlotPool):
    """Runs jobs in up to `size` threads of an executor, which others may use at the same time.

    A thread is taken only while jobs wait, and for a turn; then what else was submitted has its
    own. A run that has passed its deadline keeps its thread, which only the executor could replace.
    """

    def __init__(self, executor: Executor, size: int) -> None:
        self.executor = executor
        carrier = ExecutorCarrier(executor)
        super().__init__(size, 0.0, carrier)
        carrier.lose = self._slots.lose

    @classmethod
    def of(cls, executor: Executor, size: int) -> ExecutorPool:
        """Return the one pool of an executor: its threads if it says how many, else `size`.

        Raises:
            ConfigurationError: its calls run in other processes.
        """
        if _ELSEWHERE & {cls.__name__ for cls in type(executor).__mro__}:
            raise ConfigurationError(
                f"{type(executor).__name__} runs calls where neither the task nor its messages"
                " are; use concurrent_mode=ConcurrentModeEnum.PROCESSES"
            )
        if (pool := _pools.get(id(executor))) is None:
            most = getattr(executor, "_max_workers", None) or size
            pool = _pools[id(executor)] = cls(executor, most)
        return pool

    def _run(self, slot: Slot, job: Job) -> None:
        super()._run(slot, job)
        if time.monotonic() - slot.since >= TURN:
            raise Retired
