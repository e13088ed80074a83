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
        raised = _raise_in(slot.handle.ident or 0, type(error))
        if slot.handle is not threading.current_thread():
            _absorb()
        return raised

    def clear(self, slot: Slot) -> None:
        _absorb()


class ThreadPool(SlotPool):
    """Runs jobs in up to `size` threads; an idle one ends after `keep_alive` seconds.

    An interrupt arrives between two bytecodes: a call that blocks or computes in C is not ended,
    only abandoned.
    """

    stores = True

    def __init__(self, size: int, keep_alive: float = 60.0) -> None:
        super().__init__(size, keep_alive, ThreadCarrier())


class _Nothing(BaseException):
    """Is raised to be caught at once."""


def _raise_in(ident: int, error: type[BaseException]) -> bool:
    """Raise `error` in a thread at its next bytecode, in place of what was not raised yet."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    return bool(raise_in(ctypes.c_ulong(ident), ctypes.py_object(error)))


def _absorb() -> None:
    """Let what is to be raised in the calling thread arrive, and all threads be quick again.

    While an exception is under way, the interpreter looks for it at each call of every thread
    (half its speed), and under a trace function nothing that is called begins (Python 3.11). One
    that is taken back, or waits for a thread that is in C, is under way for ever. Where one has
    arrived, anywhere, nobody looks any more; a thread with another one does, when it goes on.
    """
    try:
        _raise_in(threading.get_ident(), _Nothing)
        for _ in range(2):
            pass
    except _Nothing:
        pass
