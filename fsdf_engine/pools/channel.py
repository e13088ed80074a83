"""Frames over a stream socket: four bytes of length, then the frame."""

from __future__ import annotations

import socket
from collections import deque

from .hand_off import LENGTH

__all__ = ["Channel", "Frames"]
CHUNK = 1 << 18


class Frames:
    """Cuts a stream into frames, whatever pieces it comes in. Pure."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the frame that is not whole yet
        self._missing = 0  # bytes at least, until it may be

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are whole now, without their lengths. O(bytes), in all."""
        self._missing -= len(data)
        if self._missing > 0:
            self._pieces.append(data)
            return []
        if self._pieces:  # joined when whole, not piece by piece: frames may be large
            data = b"".join((*self._pieces, data))
        frames, at, total, end = [], 0, len(data), LENGTH.size
        while end <= total:
            end = at + LENGTH.size + LENGTH.unpack_from(data, at)[0]
            if end > total:
                break
            frames.append(data[at + LENGTH.size : end])
            at, end = end, end + LENGTH.size
        self._missing, self._pieces = end - total, [data[at:]] if at < total else []
        return frames


class Channel:
    """A blocking end of a stream, used by one thread at a time.

    What was received stays here when an exception interrupts `receive`, so the stream is never out
    of step.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end, self._frames = end, Frames()
        self._ready: deque[bytes] = deque()
        end.setblocking(True)

    def receive(self) -> bytes | None:
        """Return the next frame; None when the other side has closed. Blocks."""
        while not self._ready:
            try:
                data = self._end.recv(CHUNK)
            except ConnectionError:
                return None
            if not data:
                return None
            self._ready.extend(self._frames.feed(data))
        return self._ready.popleft()

    def send(self, *parts: bytes) -> None:
        """Send bytes that make whole frames. Blocks.

        Raises:
            OSError: the other side is gone.
        """
        self._end.sendall(b"".join(parts))
