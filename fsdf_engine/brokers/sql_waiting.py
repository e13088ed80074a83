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
from collections.abc import Sequence
from typing import Any

from ..contracts import Outgoing
from ..errors import FsdfError, Unavailable
from ..green import Event, native_lock, native_thread
from ..unpatched import unpatched
from .sql_database import SqlDatabase
from .sql_errors import blame_of, translated

__all__ = ["Bell", "Bells", "Ear", "Listener", "rings_of"]


class Bell:
    """Where one who waits is rung."""

    def __init__(self, token: int, queue: str) -> None:
        self.token, self.queue = token, queue
        self.event = Event()
        self.until = 0.0  # when he looks by himself (`time.monotonic`)


def rings_of(batch: Sequence[Outgoing]) -> list[tuple[str, int, float, float]]:
    """Return whom new messages concern: as many as wait now, or one for the first that is due.

    Each is (queue, how many to wake, delay of what comes later, its instant).
    """
    now: dict[str, int] = {}
    later: dict[str, tuple[float, float]] = {}
    for item in batch:
        if item.delay > 0 or item.not_before > time.time():
            soon = item.delay or item.not_before - time.time()
            if item.queue not in later or soon < later[item.queue][0]:
                later[item.queue] = soon, 0.0 if item.delay else item.not_before
        else:
            now[item.queue] = now.get(item.queue, 0) + 1
    rings = [(queue, count, 0.0, 0.0) for queue, count in now.items()]
    return rings + [(queue, 1, *due) for queue, due in later.items() if queue not in now]


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


class Ear:
    """A connection that hears of notifications; of one thread, but for `poke`."""

    def __init__(self, database: SqlDatabase) -> None:
        """Connect. Raises as the client, or as `SqlDatabase.run`."""
        self._told: list[str] = []
        self._pipe = os.pipe()
        self._pid = os.getpid()
        try:
            self._session = database.connect_to_listen()
        except BaseException:
            self._close_pipe()
            raise
        self.pid = int(self._session.raw.info.backend_pid)
        self._session.raw.add_notify_handler(lambda told: self._told.append(told.payload))
        self._select = unpatched("select").select

    def listen(self, channel: str) -> None:
        """Hear what is told on a channel, too."""
        self._session.rows(f"LISTEN {channel}")

    def wait(self, timeout: float | None) -> list[str]:
        """Block until something is told, or `poke`; return what was told. Raises as the client."""
        told = [self._session.descriptor(), self._pipe[0]]
        ready, _, _ = self._select(told, [], [], 0.0 if self._told else timeout)
        if self._pipe[0] in ready:
            os.read(self._pipe[0], 4096)
        connection = self._session.raw.pgconn
        if told[0] in ready:
            connection.consume_input()
            while notice := connection.notifies():
                self._told.append(notice.extra.decode())
        heard, self._told = self._told, []
        return heard

    def poke(self) -> None:
        """End the wait. Any thread."""
        with contextlib.suppress(OSError):
            os.write(self._pipe[1], b"\0")

    def close(self) -> None:
        """Free the connection."""
        if self._pid == os.getpid():
            self._session.close()
            self._close_pipe()

    def _close_pipe(self) -> None:
        for end in self._pipe:
            os.close(end)


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
        self._ear: Ear | None = None
        self._closing = False

    def hear(self, channel: str, bell: Bell) -> int:
        """Let the bell be rung by notifications; return the connection's number. Blocks at first.

        Raises:
            Unavailable, ServerRefused: the server cannot be listened to.
        """
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            if self._thread is None:
                self._failure, self._closing, self._wanted = None, False, {}
                self._thread = native_thread(self._run, "fsdf-sql-listener")
            self._bells[bell.token] = bell
            if (heard := self._wanted.get(channel)) is None:
                heard = self._wanted[channel] = Event()
            ear = self._ear
        if ear is not None and not heard.is_set():
            ear.poke()
        heard.wait()
        if (failure := self._failure) is not None:
            raise failure
        return self._ear.pid if self._ear is not None else 0

    def forget(self, bell: Bell) -> None:
        """Ring it no more."""
        with self._lock:
            self._bells.pop(bell.token, None)

    def close(self) -> None:
        """End the thread, free the connection. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            thread, ear, self._closing = self._thread, self._ear, True
        if ear is not None:
            ear.poke()
        if thread is not None:
            thread.join(10.0)

    def _run(self) -> None:
        failure: BaseException = Unavailable("the listener was closed")
        try:
            ear = Ear(self._database)
            with self._lock:
                self._ear = ear
            self._listen(ear)
        except BaseException as error:
            shown = self._database.place.shown
            blame = None if isinstance(error, FsdfError) else blame_of(error)
            failure = translated(error, blame, shown, False) if blame else error
        finally:
            self._end(failure)

    def _listen(self, ear: Ear) -> None:
        listening: set[str] = set()
        while not self._closing:
            with self._lock:
                new = {name: done for name, done in self._wanted.items() if name not in listening}
            for name, done in new.items():
                ear.listen(name)
                listening.add(name)
                done.set()
            for told in ear.wait(None):
                with self._lock:
                    bell = self._bells.get(int(told)) if told.isdecimal() else None
                if bell is not None:
                    bell.event.set()

    def _end(self, failure: BaseException) -> None:
        """Let nobody wait for what will not come; the next one who waits begins anew."""
        with self._lock:
            ear, self._ear, self._thread, self._failure = self._ear, None, None, failure
            bells, self._bells = list(self._bells.values()), {}
            wanted = list(self._wanted.values())
        if ear is not None:
            ear.close()
        for done in wanted:
            done.set()
        for bell in bells:
            bell.event.set()
