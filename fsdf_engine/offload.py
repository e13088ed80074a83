"""Calls that block natively, made from greenlets without stopping their hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from . import green
from .core.slots import Carrier, Slot, Slots

__all__ = ["Offload"]

T = TypeVar("T")
MOST = 1000  # threads; each queue's consumer occupies one while it waits


class _NativeCarrier(Carrier):
    """A thread of the operating system per slot."""

    def start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        slot.parker = green.native_lock()
        slot.parker.acquire()
        slot.handle = green.native_thread(lambda: live(slot), "fsdf-offload")


class Offload:
    """Native threads that make blocking calls for greenlets; as many as calls block at once."""

    def __init__(self, keep_alive: float = 60.0) -> None:
        self._slots: Slots[Callable[[], None]] = Slots(
            MOST, keep_alive, _NativeCarrier(), lambda slot, call: call()
        )

    def __call__(self, fn: Callable[..., T], *args: object) -> T:
        """Return what `fn(*args)` returns or raise what it raises; blocks the greenlet only.

        A greenlet that is killed meanwhile goes on at once; the call itself is not ended.
        """
        if green.in_native_thread() or not green.active_hub():
            return fn(*args)
        done, values, errors = green.Event(), list[T](), list[BaseException]()

        def call() -> None:
            try:
                values.append(fn(*args))
            except BaseException as error:
                errors.append(error)
            done.set()

        self._slots.submit((call,))
        done.wait()
        if errors:
            raise errors.pop()  # out of the list, or the error's traceback and it are a cycle
        return values.pop()

    def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._slots.close(0.0)
