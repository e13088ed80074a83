"""A connected socket of AMQP whose owner waits for it, and for whoever wakes him, in one call."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from ..unpatched import unpatched

__all__ = ["FrameSocket"]
LARGEST = 1 << 18  # bytes of one read, and of one write
TOGETHER = 1 << 16  # bytes that leave before the owner waits
NOT_NOW = ("SSLWantReadError", "SSLWantWriteError")


class FrameSocket:
    """Sends without blocking, and cuts what comes into frames. One thread, but for `wake`.

    What is sent lies here until `turn`, or until there is much of it: so what is written together
    leaves together.
    """

    def __init__(self, connected: Any) -> None:
        sockets, selectors = unpatched("socket"), unpatched("selectors")
        self._socket = connected
        connected.setblocking(False)
        connected.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        ssl = unpatched("ssl")
        self._later = (BlockingIOError, InterruptedError, *(getattr(ssl, n) for n in NOT_NOW))
        self._pending = getattr(connected, "pending", lambda: 0)  # of TLS: read, not yet given
        self._bell, self._ear = sockets.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._read, self._both = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, self._read)
        self._selector.register(connected, self._read)
        self._watched = self._read
        self._out: list[bytes] = []
        self._waiting, self._rest = 0, memoryview(b"")
        self._came = b""
        self.woken = False
        self.sent = self.heard = time.monotonic()

    def send(self, data: bytes) -> None:
        """Let some frames leave soon. Never blocks.

        Raises:
            OSError: the connection has ended.
        """
        self._out.append(data)
        self._waiting += len(data)
        if self._waiting >= TOGETHER:
            self._flush()

    def _flush(self) -> bool:
        """Send what the system takes; say whether that was all."""
        while self._rest or self._out:
            if not self._rest:
                self._rest = memoryview(b"".join(self._out))
                self._out.clear()
                self._waiting = 0
            try:
                sent = self._socket.send(self._rest[:LARGEST])
            except self._later:
                return False
            self._rest = self._rest[sent:]
            self.sent = time.monotonic()
        return True

    def turn(self, timeout: float) -> list[tuple[int, int, bytes]]:
        """Send, then wait until something comes, `wake` is called or the time is over.

        Return the frames that came whole, as (type, channel, all of its bytes).

        Raises:
            OSError: the connection has ended.
        """
        watched = self._read if self._flush() else self._both
        if watched != self._watched:
            self._selector.modify(self._socket, watched)
            self._watched = watched
        frames: list[tuple[int, int, bytes]] = []
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._ear:
                self.woken = True
                with suppress(BlockingIOError):
                    self._ear.recv(4096)
            elif events & self._read:
                frames = self._receive()
        return frames

    def _receive(self) -> list[tuple[int, int, bytes]]:
        parts = [self._came] if self._came else []
        while True:
            try:
                part = self._socket.recv(LARGEST)
            except self._later:
                break
            if not part:
                raise ConnectionResetError("the server has closed the connection")
            parts.append(part)
            if not self._pending():
                break
        self.heard = time.monotonic()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        frames, start, size = [], 0, len(data)
        while size - start >= 8:
            end = start + 8 + int.from_bytes(data[start + 3 : start + 7], "big")
            if end > size:
                break
            channel = data[start + 1] << 8 | data[start + 2]
            frames.append((data[start], channel, data[start:end]))
            start = end
        self._came = data[start:]
        return frames

    def wake(self) -> None:
        """End the current `turn`, or the next. Any thread; nothing once closed."""
        with suppress(OSError):
            self._bell.send(b"\0")

    def close(self) -> None:
        """Close all; the socket of a forked child is closed for the child only."""
        for one in (self._selector, self._socket, self._bell, self._ear):
            with suppress(OSError):
                one.close()
