"""A thread that waits for what comes over a kombu connection, until another thread stops it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Ear"]
_FIRST_LOOK = 0.01  # seconds; it subscribes
# Seconds between what kombu does by the way, such as to keep the binding of a queue alive, where a
# stop can end the waiting; and where it cannot, as the transport waits on no socket.
_LONG_LOOK, _SHORT_LOOK = 60.0, 1.0


class Ear:
    """Listens in the thread that calls `listen`; any other one may stop it."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._sockets: list[socket.socket] = []

    def listen(self, connection: Any, heard: Callable[[], None] = lambda: None) -> None:
        """Handle what comes until it is stopped; `heard` is called when it is subscribed. Blocks.

        Raises what a lost connection raises, and perhaps so when it is stopped.
        """
        try:
            self._drain(connection, heard)
        finally:
            sockets, self._sockets = self._sockets, []
            for wire in sockets:
                wire.close()

    def _drain(self, connection: Any, heard: Callable[[], None]) -> None:
        look = _FIRST_LOOK
        while not self.stopping.is_set():
            with suppress(TimeoutError):
                connection.drain_events(timeout=look)
            if look == _FIRST_LOOK:
                self._sockets = _sockets_of(connection)
                look = _LONG_LOOK if self._sockets else _SHORT_LOOK
                heard()

    def stop(self) -> None:
        """End the waiting. Any thread; does not wait for it."""
        self.stopping.set()
        for wire in self._sockets:
            with suppress(OSError):  # it is closed, or not connected any more
                wire.shutdown(socket.SHUT_RDWR)


def _sockets_of(connection: Any) -> list[socket.socket]:
    """Return what a transport waits on, as sockets of our own: a number may mean another one soon.

    There are none where it looks by itself now and then.
    """
    cycle, wire = getattr(connection.transport, "cycle", None), connection.connection
    files = list(getattr(cycle, "fds", ()))  # Redis
    if (amqp := getattr(wire, "sock", None)) is not None:
        files.append(amqp.fileno())
    return [socket.socket(fileno=os.dup(each)) for each in files]
