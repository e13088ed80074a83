"""The one native thread that opens, uses and waits on a connection of AMQP.

Clients are no friends of threads, least of all of patched ones: so whoever wants something done
hands it over, and waits for its end; a greenlet lets its hub go on meanwhile.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import Unavailable
from ..green import Event, native_lock, native_thread
from .amqp_client import AmqpConnection

__all__ = ["Owner"]
log = logging.getLogger("fsdf.amqp")
T = TypeVar("T")
LONGEST = 60.0  # seconds of one wait of the thread; its client ends it sooner for a heartbeat


class _Call:
    __slots__ = ("done", "error", "fn", "value")

    def __init__(self, fn: Callable[[], Any]) -> None:
        self.fn, self.done = fn, Event()
        self.value: Any = None
        self.error: BaseException | None = None


class Owner:
    """Owns a connection, which is opened when it is first asked for, and again when it was lost.

    The thread lives while there is a connection, or something to do.
    `lost` is called in the owner's thread when a connection has ended; `patience` says there how
    long it may wait, and each wait is followed by `tend`. A forked child begins anew.
    """

    def __init__(
        self,
        connect: Callable[[], AmqpConnection],
        name: str,
        *,
        lost: Callable[[], None] = lambda: None,
        patience: Callable[[], float | None] = lambda: None,
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect, self._name, self._lost = connect, name, lost
        self._patience, self._tend = patience, tend
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), native_lock()
        self._calls: deque[_Call] = deque()
        self._thread: Any = None
        self._waiting = self._stopping = False
        self._connection: AmqpConnection | None = None

    def __call__(self, fn: Callable[[], T]) -> T:
        """Return what `fn()` returns in the owner's thread, or raise what it raises. Blocks."""
        call = _Call(fn)
        self._hand_over(call)
        call.done.wait()
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[no-any-return]

    def post(self, fn: Callable[[], object]) -> None:
        """Have `fn()` done soon. Never blocks; nobody hears of its errors but the log."""
        self._hand_over(_Call(fn))

    def _hand_over(self, call: _Call) -> None:
        if self._pid != os.getpid():
            self._disown()
        with self._lock:
            self._calls.append(call)
            if self._thread is None:
                self._stopping = False
                self._thread = native_thread(self._live, self._name)
            connection = self._connection if self._waiting else None
        if connection is not None:
            connection.wake()

    def _disown(self) -> None:
        connection = self._connection
        self._begin()
        if connection is not None:
            connection.abandon()
        self._lost()

    def connection(self) -> AmqpConnection:
        """Return an open connection. In the owner's thread only, and blocks there.

        Raises:
            Unavailable, ServerRefused: as for a new `AmqpConnection`.
        """
        if self._connection is not None and not self._connection.is_open:
            self._drop()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @property
    def current(self) -> AmqpConnection | None:
        """The connection, if there is one. In the owner's thread only."""
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._end(connection)

    def _end(self, connection: AmqpConnection | None) -> None:
        if connection is not None:
            connection.close()
            self._lost()

    def _live(self) -> None:
        while True:
            while self._calls:
                self._do(self._calls.popleft())
            with self._lock:
                if not self._calls and (self._stopping or self._connection is None):
                    last, self._thread, self._connection = self._connection, None, None
                    break
                self._waiting = not self._calls
            if self._waiting:
                self._wait()
                self._waiting = False
        self._end(last)

    def _do(self, call: _Call) -> None:
        try:
            call.value = call.fn()
        except BaseException as error:
            call.error = error
            log.debug("a call to the server failed: %r", error)
        if self._connection is not None and not self._connection.is_open:
            self._drop()
        call.done.set()

    def _wait(self) -> None:
        assert self._connection is not None
        patience = self._patience()
        try:
            self._connection.wait(LONGEST if patience is None else min(patience, LONGEST))
            self._tend()
        except Unavailable as error:
            log.warning("the connection %s is lost: %s", self._name, error)
            self._drop()
        except Exception:  # a loop's edge: a connection of which nothing is known is of no use
            log.exception("the connection %s has failed", self._name)
            self._drop()

    def close(self) -> None:
        """End the connection and the thread; blocks until then. Idempotent; a call begins anew."""
        if self._pid != os.getpid():
            return self._disown()
        with self._lock:
            thread, self._stopping = self._thread, True
            connection = self._connection
        if connection is not None:
            connection.wake()
        if thread is not None:
            thread.join()
        return None
