"""Who waits in a queue, and how they are woken: by this process, and by notifications.

On PostgreSQL one connection of the process listens, on a channel for each queue; whoever publishes
notifies only where a row says that somebody waits. Elsewhere a server can tell nobody: who waits is
woken by publishers of his own process, and looks up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from typing import Any

from ..errors import Unavailable
from ..green import Event, native_lock, native_thread
from ..unpatched import unpatched
from .sql_database import SqlDatabase
from .sql_errors import blame_of, translated
from .sql_session import Session

__all__ = ["Bell", "Bells", "Listener"]


class Bell:
    """Where one who waits is rung."""

    def __init__(self, token: int, queue: str) -> None:
        self.token, self.queue = token, queue
        self.event = Event()
        self.until = 0.0  # when he looks by himself (`time.monotonic`)


class Bells:
    """Those of this process who wait now. Any thread."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._waiting: defaultdict[str, list[Bell]] = defaultdict(list)

    def enter(self, bell: Bell) -> None:
        """Be rung from now on."""
        with self._lock:
            self._waiting[bell.queue].append(bell)

    def leave(self, bell: Bell) -> None:
        """Be rung no more."""
        with self._lock:
            waiting = self._waiting[bell.queue]
            if bell in waiting:
                waiting.remove(bell)
            if not waiting:
                del self._waiting[bell.queue]

    def ring(self, queue: str, most: int, delay: float = 0.0) -> None:
        """Wake up to so many who would not look by themselves within `delay` seconds."""
        at = time.monotonic() + delay
        with self._lock:
            rung = [bell for bell in self._waiting.get(queue, ()) if bell.until > at][:most]
        for bell in rung:
            bell.event.set()


class Listener:
    """The connection that hears of notifications, owned by one native thread. Any thread."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._renew()

    def _renew(self) -> None:
        self._pid, self._lock = os.getpid(), native_lock()
        self._bells: dict[int, Bell] = {}
        self._wanted: dict[str, Event] = {}  # channels, set once they are listened to
        self._failure: BaseException | None = None
        self._thread: Any = None
        self._pipe: tuple[int, int] | None = None
        self._closing = False
        self.pid = 0  # of the server's process for our connection

    def hear(self, channel: str, bell: Bell) -> int:
        """Let the bell be rung by notifications; return the connection's number. Blocks at first.

        Raises:
            Unavailable, ServerRefused: the server cannot be listened to.
        """
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            if self._thread is None:
                self._failure, self._closing = None, False
                self._wanted = {}
                self._pipe = os.pipe()
                self._thread = native_thread(self._run, "fsdf-sql-listener")
            self._bells[bell.token] = bell
            heard, pipe = self._wanted.get(channel), self._pipe
            if heard is None:
                heard = self._wanted[channel] = Event()
                self._poke(pipe)
        heard.wait()
        if (failure := self._failure) is not None:
            raise failure
        return self.pid

    def forget(self, bell: Bell) -> None:
        """Ring it no more."""
        with self._lock:
            self._bells.pop(bell.token, None)

    def close(self) -> None:
        """End the thread, free the connection. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            thread, self._closing = self._thread, True
            self._poke(self._pipe)
        if thread is not None:
            thread.join(10.0)

    def _poke(self, pipe: tuple[int, int] | None) -> None:
        if pipe is not None:
            with contextlib.suppress(OSError):
                os.write(pipe[1], b"\0")

    def _run(self) -> None:
        session, failure = None, Unavailable("the listener was closed")
        pipe = self._pipe
        assert pipe is not None
        try:
            session = self._database.connect_to_listen()
            self.pid = session.raw.info.backend_pid
            session.raw.add_notify_handler(lambda told: self._ring(told.payload))
            self._listen(session, pipe[0])
        except BaseException as error:
            shown = self._database.place.shown
            blame = blame_of(error)
            failure = translated(error, blame, shown, False) if blame else error  # type: ignore[assignment]
        finally:
            self._end(failure, pipe)
            if session is not None:
                session.close()

    def _listen(self, session: Session, pipe: int) -> None:
        wait = unpatched("select").select
        listening: set[str] = set()
        while not self._closing:
            with self._lock:
                new = {name: done for name, done in self._wanted.items() if name not in listening}
            for name, done in new.items():
                session.rows(f"LISTEN {name}")
                listening.add(name)
                done.set()
            ready, _, _ = wait([session.descriptor(), pipe], [], [])
            if pipe in ready:
                os.read(pipe, 4096)
            if len(ready) > 1 or pipe not in ready:
                session.raw.pgconn.consume_input()
                while told := session.raw.pgconn.notifies():
                    self._ring(told.extra.decode())

    def _ring(self, told: str) -> None:
        with self._lock:
            bell = self._bells.get(int(told)) if told.isdecimal() else None
        if bell is not None:
            bell.event.set()

    def _end(self, failure: BaseException, pipe: tuple[int, int]) -> None:
        """Let nobody wait for what will not come; the next one who waits begins anew."""
        with self._lock:
            self._thread, self._pipe, self._failure = None, None, failure
            bells, self._bells = list(self._bells.values()), {}
            wanted = list(self._wanted.values())
        for end in pipe:
            os.close(end)
        for done in wanted:
            done.set()
        for bell in bells:
            bell.event.set()
