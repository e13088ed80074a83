"""Signals that ask a process to end, in the order in which they come."""

from __future__ import annotations

import contextlib
from types import FrameType

from .core.signals import give_back, is_echo, numbers, stand, take, unlisten, write_to

__all__ = ["StopSignals"]


class StopSignals:
    """SIGTERM, SIGINT and the end of the work, in the order in which they come.

    To be made in the main thread. A pair of sockets carries them. The interpreter writes a signal's
    number itself, before any Python code runs: one that comes just before `next` blocks would else
    be seen after it only; it wakes a hub of greenlets, too, and another thread than the main one.
    """

    def __init__(self, *further: str, shared: bool = False) -> None:
        """`further` names other signals, where this system has them.

        In a program of somebody else's, `shared`, other handlers stay, and are called as well.
        """
        import socket

        self._numbers, self._shared = numbers(*further), shared
        self._sender, self._receiver = socket.socketpair()
        self._sender.setblocking(False)
        self._before = write_to(self._sender.fileno())
        self.take()

    def take(self) -> None:
        """Set the handlers; they put aside what others have set."""
        for number in self._numbers:
            take(number, self._see, shared=self._shared)
        write_to(self._sender.fileno())

    def await_greenly(self) -> None:
        """Make `next` let greenlets run, where sockets have been patched meanwhile."""
        import socket

        self._receiver = socket.socket(fileno=self._receiver.detach())

    def next(self) -> int:
        """Block until a signal comes, and return its number, or 0 when the work has ended.

        The same one twice within 0.1 s is one. One thread at a time.
        """
        while number := self._receiver.recv(1)[0]:  # user code may handle further ones itself
            if number in self._numbers and not is_echo(number):
                return number
        return 0

    def tell_end(self) -> None:
        """Tell that the work has ended. Any thread."""
        self._tell(0)

    def close(self) -> None:
        """Put back the handlers that were set before. Main thread."""
        give_back()
        unlisten()
        if self._shared:
            write_to(self._before)
            stand()
        self._numbers = []
        self._receiver.close()
        self._sender.close()

    def _see(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, which is written to us unless a run's code has put itself there."""
        ours = self._sender.fileno()
        if (other := write_to(ours)) != ours:
            self._tell(number)
            if other != -1:
                write_to(other)

    def _tell(self, number: int) -> None:
        with contextlib.suppress(OSError):  # full of signals, or nobody reads any more
            self._sender.send(bytes([number]))
