"""Listening to channels of Redis (publish/subscribe): one thread, one connection that comes back.

The server forgets who listens together with the connection, so nothing is left behind by a process
that dies; and it keeps no message for who is away, so after every subscription the owner is asked
to look for what it has missed.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import hiredis

from ..errors import ArgumentError, Unavailable
from .redis_connection import Command, Connections
from .redis_route import TIMEOUT, Route

__all__ = ["Subscriber"]

_log = logging.getLogger("fsdf.redis")
DOUBTED = 1.0  # seconds of silence that may be nothing
IDLE = 30.0  # seconds of silence after which the connection is tried
BACKOFF = (0.05, 5.0)  # seconds: the first pause before it connects again, and the longest


class Subscriber:
    """Hears what is published on `address`, a channel of its own, and on those it is told.

    Its thread calls `heard(channel, data)`, and `subscribed(channels)` once the server listens
    for us, also again after each reconnect. Both say which channels it need not hear any more.
    """

    def __init__(
        self,
        connections: Connections,
        url: str,
        heard: Callable[[str, bytes], Iterable[str]],
        subscribed: Callable[[Collection[str]], Iterable[str]],
    ) -> None:
        self.address = f"fsdf:inbox:{uuid.uuid4().hex}"
        self._connections, self._route = connections, Route(url, self.address)
        self._heard, self._subscribed = heard, subscribed
        self._lock = threading.Lock()  # guards the next two
        self._channels: set[str] = set()
        self._asked: list[str] = []  # to be subscribed to
        self._closing = threading.Event()
        self._connection: Any = None
        self._pause, self._came = BACKOFF[0], 0.0  # `_came`: when the server last said something
        self._thread = threading.Thread(target=self._run, name="fsdf-inbox", daemon=True)

    def start(self) -> None:
        """Begin to listen, soon."""
        self._thread.start()

    def hear(self, channels: Sequence[str]) -> None:
        """Listen to these, too. Any thread; blocks for a round trip.

        Raises:
            ArgumentError: a name cannot be written.
        """
        try:
            "".join(channels).encode()  # here, not in our thread
        except UnicodeEncodeError as error:
            raise ArgumentError(f"what is asked for cannot be a key of Redis: {error}") from None
        with self._lock:
            self._channels.update(channels)
            self._asked += channels
        try:
            self._connections.to().call(("PUBLISH", self.address, b""))  # our thread looks then
        except Unavailable:
            pass  # it reconnects, too, and subscribes to all

    def doubt(self) -> None:
        """Connect anew unless something has come just now. Any thread."""
        if time.monotonic() - self._came > DOUBTED:
            self._shut()

    def close(self) -> None:
        """End the thread and free the connection. Idempotent."""
        self._closing.set()
        self._shut()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _shut(self) -> None:
        """End what the thread waits for."""
        connection = self._connection
        if connection is not None and (sock := connection._sock) is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._connection = self._route.connection()
                self._connection.connect()
                self._receive(self._connection._sock)
            except Exception as error:
                # The loop's edge: whatever ended the connection, the next one may work.
                if not self._closing.is_set():
                    level = logging.WARNING if self._pause == BACKOFF[0] else logging.DEBUG
                    _log.log(level, "the inbox lost Redis, and tries again: %r", error)
            finally:
                self._disconnect()
            self._closing.wait(self._pause)
            self._pause = min(BACKOFF[1], self._pause * 2)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _receive(self, sock: Any) -> None:
        """Subscribe, then receive until the connection ends."""
        reader, quiet = hiredis.Reader(), False
        with self._lock:
            self._asked.clear()
            subscribe: Command = ("SUBSCRIBE", self.address, *self._channels)
        sock.sendall(hiredis.pack_command(subscribe))
        while not self._closing.is_set():
            try:
                sock.settimeout(TIMEOUT if quiet else IDLE)
                data = sock.recv(1 << 16)
            except socket.timeout:  # noqa: UP041 - another class than TimeoutError under eventlet
                if quiet:
                    raise
                quiet = True
                sock.sendall(hiredis.pack_command(("PING",)))
                continue
            if not data:
                raise ConnectionResetError("closed by the server")
            quiet, self._came = False, time.monotonic()
            reader.feed(data)
            messages = []
            while (message := reader.gets()) is not False:
                messages.append(message)
            for command in self._handle(messages):
                sock.sendall(hiredis.pack_command(command))

    def _handle(self, messages: Sequence[Any]) -> list[Command]:
        """Hand on what came; return what to ask of the server."""
        fresh: list[str] = []
        over: list[str] = []
        for message in messages:
            if isinstance(message, hiredis.ReplyError):
                raise message
            kind, channel = message[0], message[1].decode()
            if kind == b"subscribe":
                fresh.append(channel)
            elif kind == b"message" and message[2]:
                over += self._heard(channel, message[2])
        if fresh:
            over += self._subscribed(fresh)
        if self.address in fresh:
            self._pause = BACKOFF[0]
        with self._lock:
            asked, self._asked = self._asked, []
            over = [channel for channel in dict.fromkeys(over) if channel in self._channels]
            self._channels.difference_update(over)
        wanted = [("SUBSCRIBE", *asked)] if asked else []
        return wanted + ([("UNSUBSCRIBE", *over)] if over else [])
