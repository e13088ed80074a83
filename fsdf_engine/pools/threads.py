"""Thread pool: elastic, one shared deque, parked slots."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from ..core.slots import Carrier, Slot
from .base import SlotPool

__all__ = ["ThreadCarrier", "ThreadPool"]


class ThreadCarrier(Carrier):
    """A daemon thread per slot."""

    def __init__(self, name: str = "fsdf-slot") -> None:
        self._name = name

    def start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        thread = threading.Thread(target=live, args=(slot,), name=self._name, daemon=True)
        self.prepare(slot, thread)
        thread.start()

    def prepare(self, slot: Slot, thread: threading.Thread) -> None:
        """Let a slot have its lock and its thread, before it lives."""
        slot.parker = threading.Lock()
        slot.parker.acquire()
        slot.handle = thread

    def throw(self, slot: Slot, job: Any, error: BaseException) -> bool:
        return _raise_in(slot.handle, type(error))

    def clear(self, slot: Slot) -> None:
        _raise_in(slot.handle, None)


class ThreadPool(SlotPool):
    """Runs jobs in up to `size` threads; an idle one ends after `keep_alive` seconds.

    An interrupt arrives between two bytecodes: a call that blocks or computes in C is not ended,
    only abandoned.
    """

    def __init__(self, size: int, keep_alive: float = 60.0) -> None:
        super().__init__(size, keep_alive, ThreadCarrier())


def _raise_in(thread: threading.Thread, error: type[BaseException] | None) -> bool:
    """Raise `error` in a thread at its next bytecode, or take back what was not raised yet."""
    what = ctypes.py_object(error) if error else None
    ident = ctypes.c_ulong(thread.ident or 0)
    return bool(ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, what))
