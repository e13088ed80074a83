"""A thing that one thread at a time may have, in the order of arrival.

A plain lock lets whoever gives it back take it again before a waiting thread has woken up; a loop
that publishes would keep a consumer from fetching for tenths of a second. And a lock that an
interrupt leaves locked stays so; a `Held` that is dropped goes back by itself.
"""

from __future__ import annotations

# The C queue: its waiters block natively also where `threading` is patched, and the turns are
# taken by native threads.
import _queue
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ..green import native_lock

__all__ = ["FairLock", "Held"]

T = TypeVar("T")


class Held(Generic[T]):
    """Our turn. Give it back; if it is dropped, by an interrupt, the line mends the thing."""

    __slots__ = ("_lock", "thing")

    def __init__(self, thing: T, lock: weakref.ref[FairLock[T]]) -> None:
        self.thing, self._lock = thing, lock

    def __del__(self) -> None:
        if (lock := self._lock()) is not None:  # a finalizer runs once, so another one goes back
            lock.lose(Held(self.thing, self._lock))


class FairLock(Generic[T]):
    """Hands one thing from thread to thread. Any thread, of any kind."""

    def __init__(self, thing: T, mend: Callable[[T], None] = lambda thing: None) -> None:
        """Take the thing, and what makes it fit for the next one after an interrupt."""
        self._mend = mend
        self._guard = native_lock()  # of the next two
        self._free: deque[Held[T]] = deque([Held(thing, weakref.ref(self))])
        self._waiting: deque[_queue.SimpleQueue[Held[T]]] = deque()
        self._lost: deque[Held[T]] = deque()  # themselves `Held`: an interrupt may strike again

    def take(self, timeout: float) -> Held[T]:
        """Block until it is our turn.

        Raises:
            TimeoutError: it was not within `timeout` seconds.
        """
        self._find()
        with self._guard:
            if self._free:
                return self._free.popleft()
            mine: _queue.SimpleQueue[Held[T]] = _queue.SimpleQueue()
            self._waiting.append(mine)
        try:
            self._find()  # `lose` leaves to us what it found the guard taken for
            return mine.get(timeout=timeout)
        except _queue.Empty:
            if self._leave(mine):
                raise TimeoutError from None
            return mine.get()  # handed to us in this moment
        except BaseException:  # an interrupt
            if not self._leave(mine) and not mine.empty():  # else it struck just after `get`
                self.give(mine.get())
            raise

    def _leave(self, mine: _queue.SimpleQueue[Held[T]]) -> bool:
        """Stop waiting; False if it has been handed to us."""
        with self._guard:
            if mine not in self._waiting:
                return False
            self._waiting.remove(mine)
            return True

    def give(self, held: Held[T]) -> None:
        """End our turn: the next one has it at once. Never blocks for long."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().put(held)
            else:
                self._free.append(held)
            del held
        if self._lost:  # whom it was handed to had been interrupted just after queuing up
            self._find()

    def lose(self, held: Held[T]) -> None:
        """Take back what was dropped. Called by a finalizer, thus takes the guard only if free."""
        self._lost.append(held)
        if self._guard.acquire(False):
            self._guard.release()
            self._find()

    def _find(self) -> None:
        while self._lost:
            try:
                held = self._lost.popleft()
            except IndexError:
                return  # another thread was faster
            self._mend(held.thing)
            self.give(held)
