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
from .redis_wire import Silence, Wire, wire_over

__all__ = ["Subscriber"]

_log = logging.getLogger("fsdf.redis")
DOUBTED = 1.0  # seconds of silence that may be nothing
IDLE = 30.0  # seconds of silence after which the connection is tried
LEAD = 1.0  # seconds for which one who waits receives by himself; then our thread does
ASIDE = 0.02  # seconds for which our thread waits for the next one who does
BACKOFF = (0.05, 5.0)  # seconds: the first pause before it connects again, and the longest


class Subscriber:
    """Hears what is published on `address`, a channel of its own, and on those it is told.

    Its thread calls `heard(channel, data)`, and `subscribed(channels)` once the server listens
    for us, also again after each reconnect. Both say which channels it need not hear any more.
    While one waiter follows the other, each calls them himself, by `attend`, which saves a change
    of threads; ours looks after the connection all the same.
    """

    def __init__(
        self,
        connections: Connections,
        url: str,
        heard: Callable[[str, bytes], Iterable[str]],
        subscribed: Callable[[Collection[str]], Iterable[str]],
    ) -> None:
        name = uuid.uuid4().hex
        self.address = f"fsdf:inbox:{name[:12]}8{name[13:]}"  # where former versions have a 4
        self._connections, self._route = connections, Route(url, self.address)
        self._heard, self._subscribed = heard, subscribed
        self._lock = threading.Lock()  # guards the next three
        self._channels: set[str] = set()
        self._asked: list[str] = []  # to be subscribed to
        self._reader: object = None  # who receives: we, that is our thread, or one who waits
        self._lent = False  # they have received just now, so the next one may
        self._called = threading.Event()  # our thread shall not wait for that
        self._stream: tuple[Wire, hiredis.Reader] | None = None  # used by `_reader` only
        self._attended: Sequence[bytes] | None = None  # what the last who waits finds
        self._dropped = False  # we have ended the connection ourselves
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

    def attend(self, done: threading.Lock, found: Sequence[bytes], timeout: float) -> bool:
        """Wait as `Inbox.attend`: receive here if our thread does not, and save its wake-up."""
        end, me = time.monotonic() + timeout, object()
        self._attended = found
        try:
            if self._stream and self._stream[0].native and self._take(me):
                self._lead(found, min(end, time.monotonic() + LEAD))
        finally:
            if self._reader is me:
                self._lent, self._reader = True, None
                if not found:
                    self.resume()
        return done.acquire(timeout=max(0.0, end - time.monotonic()))

    def resume(self) -> None:
        """Receive in our thread, unless somebody else does. Any thread."""
        self._lent = False
        self._called.set()

    def _take(self, who: object) -> bool:
        with self._lock:
            if self._reader is None:
                self._reader = who
            return self._reader is who

    def _lead(self, found: Sequence[bytes], end: float) -> None:
        """Receive until something is found, `end` has come, or the connection has ended."""
        self._lent = True
        try:
            while not found and (left := end - time.monotonic()) > 0:
                self._step(left)
        except Silence:
            pass
        except BaseException as error:
            lost = isinstance(error, (ConnectionError, hiredis.HiredisError, Unavailable))
            lost = (
                lost or getattr(error, "errno", None) is not None
            )  # else a signal's handler did it
            self._dropped = not lost
            self._shut()  # our thread connects anew: what was received may not have been handled
            if not lost:
                raise

    def doubt(self) -> None:
        """Connect anew unless something has come just now. Any thread."""
        if time.monotonic() - self._came > DOUBTED:
            self._shut()

    def close(self) -> None:
        """End the thread and free the connection. Idempotent."""
        self._closing.set()
        self.resume()
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
                    first = self._pause == BACKOFF[0] and not self._dropped
                    level = logging.WARNING if first else logging.DEBUG
                    text = "results: the connection to Redis at %s is lost, it is tried again: %r"
                    _log.log(level, text, self._route.masked, error)
            finally:
                self._disconnect()
            self._dropped = False
            self._closing.wait(self._pause)
            self._pause = min(BACKOFF[1], self._pause * 2)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _receive(self, sock: Any) -> None:
        """Subscribe, then receive until the connection ends."""
        wire, pinged = wire_over(sock, IDLE), 0.0
        with self._lock:
            self._asked.clear()
            subscribe: Command = ("SUBSCRIBE", self.address, *self._channels)
        wire.send(hiredis.pack_command(subscribe))
        self._stream = wire, hiredis.Reader()
        try:
            while not self._closing.is_set():
                self._await_turn()
                self._attended, quiet = None, self._came < pinged
                try:
                    self._step(TIMEOUT if quiet else 0.0)
                except Silence:
                    if quiet:
                        raise
                    pinged = time.monotonic()
                    wire.send(hiredis.pack_command(("PING",)))
                finally:
                    self._reader = None
                self._lent = bool(self._attended)
        finally:
            self._stream = None

    def _await_turn(self) -> None:
        """Block while those who wait receive by themselves, one soon after the other."""
        while self._lent or not self._take(self):
            self._lent = False
            if self._called.wait(ASIDE):
                self._called.clear()

    def _step(self, patience: float) -> None:
        """Receive something, and handle it. By the one who is `_reader`."""
        if self._stream is None:
            raise ConnectionResetError("closed meanwhile")
        wire, reader = self._stream
        if not (data := wire.receive(patience)):
            raise ConnectionResetError("closed by the server")
        self._came = time.monotonic()
        reader.feed(data)
        messages = []
        while (message := reader.gets()) is not False:
            messages.append(message)
        for command in self._handle(messages):
            wire.send(hiredis.pack_command(command))

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
