"""Inline pool: one run at a time, in the order of submission, in one thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

from ..contracts import Job
from ..core.main_thread import nudge
from ..core.signals import let_nudge
from ..core.slots import Slot
from .base import SlotPool
from .threads import ThreadCarrier

__all__ = ["InlinePool"]


class InlinePool(SlotPool):
    """Runs jobs one by one; the same thread serves them all unless a run is abandoned.

    That is a dedicated one, or one that is lent. A lent one is never replaced: what outlives its
    deadline there holds up the others. In a lent main thread an interrupt ends what waits, too.
    """

    _carrier: _Carrier

    def __init__(self, size: int = 1) -> None:
        """Take `size` as every pool does; it is always 1."""
        super().__init__(1, threading.TIMEOUT_MAX, _Carrier("fsdf-inline"))

    def lend(self) -> Callable[[], None] | None:
        if self._carrier.lent:  # for another of its consumers
            return None
        self._carrier.lend()
        return self._carrier.serve

    @property
    def spare(self) -> int:
        return 0 if self._carrier.lent else 1

    def close(self, grace: float) -> Collection[Job]:
        alive = super().close(grace)
        self._carrier.give_back()
        return alive


class _Carrier(ThreadCarrier):
    """Lets its one slot live in the thread that is lent, as long as one is."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lent: threading.Thread | None = None
        self._slot: Slot | None = None  # the last one that lives there
        self._starts: deque[tuple[Slot, Callable[[Slot], None]]] = deque()
        self._lock = threading.Lock()  # nothing comes into `_starts` once `lent` is None

    def lend(self) -> None:
        """Reserve the calling thread, which comes to `serve`."""
        self._come = threading.Semaphore(0)
        self.lent = threading.current_thread()
        if self.lent is threading.main_thread():
            let_nudge()

    def serve(self) -> None:
        """Let slots live in the calling thread until `give_back`."""
        try:
            while self.lent:
                self._come.acquire()
                while self._starts:
                    slot, live = self._starts.popleft()
                    live(slot)
        finally:  # a signal's handler may have raised
            self.give_back()
            for slot, live in self._starts:
                super().start(slot, live)

    def give_back(self) -> None:
        """From now on slots have threads of their own. Any thread; idempotent."""
        with self._lock:
            if self.lent:
                self.lent = None
                self._come.release()

    def start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        with self._lock:
            if self.lent is None:
                return super().start(slot, live)
            if self._slot and self._slot.abandoned:
                raise RuntimeError("the thread that was lent is in a run that does not end")
            self.prepare(slot, self.lent)
            self._slot = slot
            self._starts.append((slot, live))
            return self._come.release()

    def throw(self, slot: Slot, job: Job, error: BaseException) -> bool:
        raised = super().throw(slot, job, error)
        if slot.handle is threading.main_thread():
            nudge()
        return raised
