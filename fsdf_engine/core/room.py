"""Where a consumer's thread parks until the outbox has made room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Room"]


class Room:
    """One thread parks here; others only look whether it does, which costs them nothing."""

    def __init__(self) -> None:
        self._parked, self._changed = False, threading.Event()

    def wait_while(self, full: Callable[[], bool], timeout: float) -> None:
        """Block while it is full, until `rouse`, `made` or for so many seconds; looks once."""
        self._parked = True  # before looking: others change what we look at, then look here
        if full():
            self._changed.wait(max(0.0, timeout))
        self._parked = False
        self._changed.clear()

    def drained(self, left: Callable[[], bool], timeout: float, cut: Callable[[], bool]) -> bool:
        """Block until nothing is left, at most `timeout` seconds; say whether that is so.

        `cut` says that nobody is to wait any longer.
        """
        deadline = time.monotonic() + timeout
        while (some := left()) and not cut():
            if (rest := deadline - time.monotonic()) <= 0:
                break
            self.wait_while(left, rest)
        return not some

    def made(self) -> None:
        """Wake who has parked: there may be room. Any thread."""
        if self._parked:
            self._parked = False
            self._changed.set()

    def rouse(self) -> None:
        """End the current wait, or the next one. Any thread."""
        self._changed.set()
