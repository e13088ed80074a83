"""Bytes to and from a server of Redis; every wait is bounded.

Where the kernel can bound a blocking call it does. A timeout of Python's own costs a poll() before
each call, and each of these lets another thread have the interpreter: when a message wakes one
thread after the other, that is most of what they do.
"""

from __future__ import annotations

import math
import os
import select
import socket
import struct
from typing import Any, Protocol

__all__ = ["Silence", "Wire", "wire_over"]

_MOST = 1 << 16  # bytes received at once
_SLICE = 1 << 20  # bytes that must leave within the limit


class Silence(TimeoutError):
    """Nothing has come; no other TimeoutError says so, least of all one of a signal's handler."""


class Wire(Protocol):
    """Over one connected socket. What exceeds its limit raises an OSError."""

    native: bool  # its calls block a thread, any thread

    def send(self, data: bytes, /) -> object:
        """Send all of it. Blocks."""

    def receive(self, patience: float = 0.0, /) -> bytes:
        """Return what has come, b"" at the end. Blocks, at most for `patience` or the limit.

        Raises:
            Silence: nothing has come.
        """

    def has_ended(self) -> bool:
        """Say whether something other than nothing has come: the end, or what nobody expects."""


def wire_over(sock: Any, limit: float) -> Wire:
    """Return how to send and receive; no step may take longer than `limit` seconds."""
    # a green socket or one of TLS is of another class, or the class is of another module
    native = type(sock) is socket.socket and type(sock).__module__ == "socket"
    return _Blocking(sock, limit) if native and os.name == "posix" else _Timed(sock, limit)


class _Blocking:
    """The limit restarts with a call that a signal's handler has interrupted."""

    native = True

    def __init__(self, sock: socket.socket, limit: float) -> None:
        self._sock, self.send = sock, sock.sendall
        sock.settimeout(None)
        part, whole = math.modf(limit)
        limits = struct.pack("ll", int(whole), int(part * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, limits)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def receive(self, patience: float = 0.0, /) -> bytes:
        if patience and not self._poll.poll(math.ceil(patience * 1000)):
            raise Silence("timed out")
        try:
            return self._sock.recv(_MOST)
        except BlockingIOError:
            raise Silence("timed out") from None

    def has_ended(self) -> bool:
        try:
            self._sock.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class _Timed:
    native = False

    def __init__(self, sock: Any, limit: float) -> None:
        self._sock, self._limit = sock, limit

    def send(self, data: bytes, /) -> None:
        self._sock.settimeout(self._limit)
        for start in range(0, len(data), _SLICE):  # the timeout is of a whole sendall()
            self._sock.sendall(data[start : start + _SLICE])

    def receive(self, patience: float = 0.0, /) -> bytes:
        self._sock.settimeout(patience or self._limit)
        try:
            return self._sock.recv(_MOST)  # type: ignore[no-any-return]
        except socket.timeout:  # noqa: UP041 - another class than TimeoutError under eventlet
            raise Silence("timed out") from None

    def has_ended(self) -> bool:
        try:
            self._sock.settimeout(0)
            self._sock.recv(1)
        except BlockingIOError:
            return False
        except OSError as error:  # TLS says "want read"
            return type(error).__name__ != "SSLWantReadError"
        return True
