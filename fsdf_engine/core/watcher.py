"""One thread that waits for many things: sockets, ends of processes, calls from other threads."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Watcher"]
End: TypeAlias = socket.socket | int
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Watcher:
    """Belongs to one thread, but for `wake`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._receiver = socket.socketpair()
        self._wakeup.setblocking(False)
        self._receiver.setblocking(False)
        self.add(self._receiver, self._listen)

    def add(self, end: End, call: Callable[[], object]) -> None:
        """Let `wait` call this whenever `end` is readable, or closed by the other side."""
        self._selector.register(end, READ, call)

    def want_write(self, end: End, wanted: bool) -> None:
        """Say whether its call is to be made when `end` is writable, too."""
        with contextlib.suppress(KeyError, ValueError):  # it is watched no more
            key, events = self._selector.get_key(end), READ | WRITE if wanted else READ
            if key.events != events:
                self._selector.modify(end, events, key.data)

    def drop(self, end: End) -> None:
        """Watch it no more. Idempotent."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(end)

    def wait(self, timeout: float | None) -> None:
        """Block until something happens, and make its calls."""
        for key, _ in self._selector.select(timeout):
            key.data()

    def wake(self) -> None:
        """End the current wait, or the next one. Any thread."""
        with contextlib.suppress(OSError):  # full: it ends anyway; or closed
            self._wakeup.send(b"\0")

    def close(self) -> None:
        """Free the descriptors."""
        self._selector.close()
        self._wakeup.close()
        self._receiver.close()

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(4096)
