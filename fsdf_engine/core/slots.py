"""Slots: an elastic set of workers over one deque.

A slot lives on a carrier, an OS thread or a greenlet. It takes items from the left of the deque
while there are some, then parks. `submit` is one `extend` and wakes one slot, which wakes the next
if it finds more: a chain that is as quick as slots block and ends at once where one is enough.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import repeat
from typing import Any, Generic, TypeVar

from .. import green
from ..errors import ConfigurationError
from .context import Forked

__all__ = ["Carrier", "Retired", "Slot", "Slots", "checked_size", "take_last"]

log = logging.getLogger("fsdf.pools")
T = TypeVar("T")


class Slot:
    """What one worker shows to the others.

    `job` and `hit` are written in opposite order by the slot (job = None, then reads hit) and by an
    interrupter (hit = True, then reads job), so one of them always sees the other: no lock per run.
    """

    __slots__ = ("abandoned", "guard", "handle", "hit", "job", "parker", "raised", "since")

    def __init__(self) -> None:
        self.job: Any = None  # set while user code is armed
        self.hit = False  # somebody interrupts this run; written under guard
        self.raised = False  # the exception that is to end this run was raised; under guard
        self.abandoned = False  # this run has passed its deadline; under guard
        self.guard = green.native_lock()  # held while an exception is being raised in the slot
        self.handle: Any = None  # the carrier's: the thread or greenlet
        self.parker: Any = None  # the carrier's: what the slot parks on
        self.since = 0.0  # the carrier's: when it began, where that counts


class Retired(BaseException):
    """Raised by what a slot runs when the slot is one too many."""


class Carrier(ABC):
    """What slots live on; they park on a lock of their own, which `start` makes and acquires."""

    turn = 0  # items a slot runs before it lets others run; 0: the carrier is preemptive

    @abstractmethod
    def start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        """Run `live(slot)` on a carrier of its own.

        Raises:
            RuntimeError: none can be started now.
        """

    def park(self, slot: Slot, timeout: float | None) -> bool:
        """Block the calling slot until `unpark`; False when the time has passed."""
        wait = -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        return slot.parker.acquire(timeout=wait)  # type: ignore[no-any-return]

    def unpark(self, slot: Slot) -> None:
        """End the park of a slot, or its next one. Any thread; once per park."""
        slot.parker.release()

    def pause(self) -> None:
        """Let others run. Called by a slot after `turn` items."""

    def throw(self, slot: Slot, job: Any, error: BaseException) -> bool:
        """Raise an exception in what the slot runs, if that is still `job`; False: impossible."""
        return False

    def clear(self, slot: Slot) -> None:
        """Take back an exception that has not arrived yet. Called by the slot itself."""


def checked_size(size: int) -> int:
    """Return the size of a pool if it is one.

    Raises:
        ConfigurationError: it is not a whole number from 1.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigurationError(f"a pool of size {size!r}; give a whole number from 1")
    return size


def take_last(items: deque[T], limit: int, owner: object = None, *, acked: bool = True) -> list[T]:
    """Take up to `limit` items (of this owner) from the right; the others keep their order."""
    taken: list[T] = []
    others: list[T] = []
    with suppress(IndexError):
        while len(taken) < limit:
            item: Any = items.pop()
            wanted = (owner is None or item.owner is owner) and (acked or not item.acked)
            (taken if wanted else others).append(item)
    items.extend(reversed(others))
    return taken


class Slots(Generic[T]):
    """Runs items by `run(slot, item)` on at most `size` slots; starts and ends slots as needed."""

    def __init__(
        self, size: int, keep_alive: float, carrier: Carrier, run: Callable[[Slot, T], None]
    ) -> None:
        self.size, self._keep_alive = checked_size(size), keep_alive
        self._carrier, self._run = carrier, run
        self._reset()
        if hasattr(os, "register_at_fork"):
            again = weakref.WeakMethod(self._after_fork)
            os.register_at_fork(after_in_child=lambda: (reset := again()) and reset())

    def _after_fork(self) -> None:
        """Start empty: a forked child has none of the slots, and the items are its parent's."""
        self.items.clear()  # the copy of a slot still looks at them
        self._reset()

    def _reset(self) -> None:
        self.items: deque[T] = deque()
        self.all: set[Slot] = set()
        self.abandoned: set[Slot] = set()  # their runs have passed their deadlines
        self._parked: list[Slot] = []
        self._lock = green.native_lock()  # guards growth and shrinking; nothing blocks under it
        self._coming = False  # a slot was started and has not looked at the items yet
        self._closing = False
        self._empty = green.Event()  # every slot has ended, abandoned ones left out

    def submit(self, items: Iterable[T]) -> None:
        """Take every item; run them in order. Never blocks."""
        self.items.extend(items)
        self.wake()

    def spares(self) -> bool:
        """Say whether the calling slot is not needed now: nothing waits, and another is free."""
        return not self.items and (bool(self._parked) or len(self.all) < self.size)

    def wake(self) -> None:
        """Wake one slot, or start one."""
        try:
            slot = self._parked.pop()
        except IndexError:
            self._grow()
        else:
            self._carrier.unpark(slot)

    def _surplus(self) -> int:
        """Say by how many the slots that count exceed `size`; negative: there is room."""
        return len(self.all) - min(len(self.abandoned), self.size) - self.size

    def _grow(self) -> None:
        with self._lock:
            if self._coming or self._surplus() >= 0:
                return
            slot = Slot()
            self.all.add(slot)
            self._coming = True
        try:
            self._carrier.start(slot, self._live)
        except RuntimeError as error:  # too many threads: those there are go on
            self.lose(slot, error)

    def lose(self, slot: Slot, error: BaseException) -> None:
        """Count a slot no longer that was started, or not even that, and never lives."""
        with self._lock:
            self.all.discard(slot)
            self._coming = False
            self._look()
        log.warning("no further slot can be started: %r", error)

    def _live(self, slot: Slot) -> None:
        self._coming = False  # before it looks at the items: who adds more now wakes another one
        try:
            while self._serve(slot) or self._park(slot):
                pass
        except Forked as end:  # threads let go nothing else without a word
            raise SystemExit(end.code) from None
        except Retired:
            pass
        except BaseException:  # nothing that user code raises gets here
            log.exception("a slot died of an error outside user code; it is replaced")
        finally:
            with self._lock:
                self.all.discard(slot)
                self.abandoned.discard(slot)
                self._look()
            if self.items:
                self.wake()

    def _serve(self, slot: Slot) -> bool:
        """Run items; True when a turn is over, False when none are left. Blocks in user code."""
        items, run, turn, first = self.items, self._run, self._carrier.turn, True
        for _ in range(turn) if turn else repeat(None):
            try:
                item = items.popleft()
            except IndexError:
                return False
            if first:
                first = False
                if items:
                    self.wake()
            run(slot, item)
            del item  # this frame stays reachable from the traceback of what a run has raised
        self._carrier.pause()
        return True

    def _park(self, slot: Slot) -> bool:
        """Block until there may be work; False: idle for `keep_alive`, or we close."""
        if slot not in self.all:  # the copy of one, in a forked child
            return False
        self._parked.append(slot)
        if not self.items and not self._closing and self._carrier.park(slot, self._keep_alive):
            return True
        try:
            self._parked.remove(slot)
        except ValueError:  # somebody has taken us out and wakes us right now
            return self._carrier.park(slot, None)
        return bool(self.items)

    def abandon(self, slot: Slot) -> None:
        """Count this slot no longer; `wake` then lets another one take its place."""
        with self._lock:
            self.abandoned.add(slot)
            self._look()

    def regain(self, slot: Slot) -> None:
        """Count this slot again, whose abandoned run has ended.

        Raises:
            Retired: its place has been taken.
        """
        with self._lock:
            self.abandoned.discard(slot)
            if self._surplus() > 0:
                raise Retired

    def _look(self) -> None:
        if len(self.all) == len(self.abandoned) and not self.items:
            self._empty.set()

    def withdraw(self, limit: int, owner: object = None, *, acked: bool = True) -> list[T]:
        """Take back up to `limit` items (of this owner) that have not started, the last first."""
        taken = take_last(self.items, limit, owner, acked=acked)
        if self.items:
            self.wake()
        return taken

    def close(self, grace: float | None) -> None:
        """Run what waits, end every slot. Blocks for `grace` seconds at most; None: until done."""
        self._closing = True
        self._empty.clear()
        while self._parked:
            self.wake()
        if self.items:
            self.wake()
        with self._lock:
            self._look()
        self._empty.wait(grace)
