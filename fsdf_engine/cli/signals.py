"""How a worker command learns that it is to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

__all__ = ["StopSignals"]


class StopSignals:
    """SIGTERM, SIGINT and the end of the work, in the order in which they come.

    To be made and asked in the main thread. A pair of sockets carries them. The interpreter writes
    a signal's number itself, before any Python code runs: one that comes just before `next` blocks
    would else be seen after it only; and it wakes a hub of greenlets, too.
    """

    def __init__(self, *further: str) -> None:
        """`further` names other signals, where this system has them."""
        names = ("SIGTERM", "SIGINT", "SIGBREAK", *further)
        self._numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        self._mouth, self._ear = socket.socketpair()
        self._mouth.setblocking(False)
        self._masked = threading.local()  # the forking thread's signal mask, while it forks
        self._before = {number: signal.getsignal(number) for number in self._numbers}
        self.take()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._hold_back,
                after_in_parent=self._let_through,
                after_in_child=self._leave,
            )

    def take(self) -> None:
        """Set the handlers; they put aside what others have set."""
        for number in self._numbers:
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)

    def await_greenly(self) -> None:
        """Make `next` let greenlets run, where sockets have been patched meanwhile."""
        self._ear = socket.socket(fileno=self._ear.detach())

    def next(self) -> int:
        """Block until a signal comes, and return its number, or 0 when the work has ended."""
        while (number := self._ear.recv(1)[0]) not in (0, *self._numbers):
            pass  # user code handles a signal of its own
        return number

    def tell_end(self) -> None:
        """Tell that the work has ended. Any thread."""
        with contextlib.suppress(OSError):  # full of signals, or nobody reads any more
            self._mouth.send(b"\0")

    def close(self) -> None:
        """Put back the handlers that were set before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(-1)
        self._numbers = []
        self._ear.close()
        self._mouth.close()

    def _hold_back(self) -> None:
        self._masked.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def _let_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masked.before)

    def _leave(self) -> None:
        """In a child that a run has forked: its signals are its own, and end it as is usual."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)
        if self._numbers:
            signal.set_wakeup_fd(-1)
        self._let_through()  # one that came meanwhile was for the child
