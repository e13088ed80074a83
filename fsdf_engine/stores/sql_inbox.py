"""Where a process learns of results in an SQL database, and how writers tell it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from ..brokers.sql_errors import blame_of, translated
from ..brokers.sql_session import Session
from ..brokers.sql_waiting import Ear
from ..contracts import Inbox, Record
from ..errors import FsdfError
from ..green import Event
from .base import Deliver

if TYPE_CHECKING:
    from ..offload import Offload
    from .sql import SqlStore

__all__ = ["SqlInbox", "told"]

_log = logging.getLogger("fsdf.stores")
AGAIN = 1.0  # seconds until a server that could not be asked is tried again
LOOK = 60.0  # seconds between two looks where the server notifies
SOONEST, LATEST = 0.005, 0.25  # ... and where it does not
KEPT = 3600.0  # seconds until what nobody has fetched is forgotten
_PAYLOAD = 7500  # bytes; PostgreSQL takes 7,999
_ADDRESS = re.compile(r"sql-[0-9a-f]{32}")


def told(store: SqlStore, address: str, records: Sequence[Record]) -> None:
    """Tell an inbox of ends; one that is nobody's is no error."""
    if not _ADDRESS.fullmatch(address):
        return  # of another store, or of nobody
    if store.database.is_postgresql:
        _notify(store, address, records)
        return
    for start in range(0, len(records), 100):
        part = records[start : start + 100]
        store.database.run(partial(_leave, store, address, part))
    if (mine := store.inboxes.get(address)) is not None:
        mine.look()


def _notify(store: SqlStore, address: str, records: Sequence[Record]) -> None:
    """Send what fits into notifications; leave the rest as rows, and say so."""
    payloads, large, size = [[]], [], 0  # type: ignore[var-annotated]
    for record in records:
        try:
            one = [record.id, record.body.decode()]
            length = len(orjson.dumps(one)) + 1
        except (UnicodeDecodeError, TypeError):
            large.append(record)
            continue
        if length > _PAYLOAD:
            large.append(record)
            continue
        if size + length > _PAYLOAD:
            payloads.append([])
            size = 0
        payloads[-1].append(one)
        size += length
    texts = [orjson.dumps(payload).decode() for payload in payloads if payload]

    def send(session: Session) -> None:
        _leave(store, address, large, session)
        every = [*texts, "[]"] if large else texts
        channel = address.replace("-", "_")
        sql = "SELECT pg_notify(%(channel)s, told) FROM unnest(%(told)s::text[]) AS told"
        session.rows(sql, {"channel": channel, "told": every})

    store.database.run(send)


def _leave(store: SqlStore, address: str, records: Sequence[Record], session: Session) -> None:
    """Leave ends for the inbox as rows."""
    database = store.database
    values: dict[str, Any] = {"address": database.key(address)}
    rows = []
    for n, record in enumerate(records):
        values |= {f"id{n}": record.id.encode("utf-8", "surrogatepass"), f"body{n}": record.body}
        rows.append(f"(%(address)s, %(id{n})s, %(body{n})s, @@now + {KEPT})")
    if rows:
        sql = f"INSERT INTO @notice (address, id, body, expires) VALUES {', '.join(rows)}"
        session.rows(database.sql(sql), values)


class SqlInbox(Inbox):
    """See `Inbox`. Its thread is the hub's where there is one, and waits in a native one."""

    def __init__(
        self,
        store: SqlStore,
        deliver: Deliver,
        pending: Callable[[], Sequence[str]],
        layout: str,
        call: Offload,
    ) -> None:
        token = secrets.token_hex(16)
        self.address, self._store, self._layout = f"sql-{token}", store, layout
        self._deliver, self._pending, self._call = deliver, pending, call
        self._event, self._closing, self._gap = Event(), False, False
        self._pause, self._pid = SOONEST, os.getpid()
        self._ear: Ear | None = None
        if store.database.is_postgresql:
            call(self._listen)
        else:
            call(store.database.rows, "SELECT 1", {})
        store.inboxes[self.address] = self
        self._thread = threading.Thread(target=self._run, name="fsdf-inbox", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            self._ear = Ear(self._store.database)
            self._ear.listen(self.address.replace("-", "_"))
        except BaseException as error:
            self._lost(error)

    def _lost(self, error: BaseException) -> NoReturn:
        """Raise what it means."""
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()
        blame = None if isinstance(error, FsdfError) else blame_of(error)
        if blame is None:
            raise error
        raise translated(error, blame, self._store.database.place.shown, False) from error

    def look(self) -> None:
        """Look at once. Any thread."""
        self._event.set()
        if (ear := self._ear) is not None:
            ear.poke()

    def watch(self, ids: Sequence[str]) -> None:
        self._call(self._store.watch, ids, self.address, self._layout)
        for id, body in self._store.read(ids, final=True, layout=self._layout).items():
            self._deliver(id, body)
        self._hurry()

    def attend(self, done: Any, found: Sequence[bytes], timeout: float) -> bool:
        self._hurry()
        return bool(done.acquire(timeout=timeout))

    def _hurry(self) -> None:
        """Look soon, where nobody notifies."""
        if not self._store.database.is_postgresql:
            self._pause = SOONEST
            self._event.set()

    def doubt(self) -> None:
        self._gap = True
        self.look()

    def _run(self) -> None:
        while not self._closing:
            try:
                for id, body in self._call(self._wait):
                    self._deliver(id, body)
                if self._gap and not self._closing:
                    self._gap = False
                    found = self._store.read(self._pending(), final=True, layout=self._layout)
                    for id, body in found.items():
                        self._deliver(id, body)
            except FsdfError as error:
                if not self._closing:
                    _log.warning(
                        "results cannot be read, trying again", extra={"error": str(error)}
                    )
                    self._gap = True
                    self._call(self._event.wait, AGAIN)

    def _wait(self) -> list[tuple[str, bytes]]:
        """Block until something may have come; return what has. In a native thread."""
        payloads: list[list[list[str]]] = []
        if not self._store.database.is_postgresql:
            self._event.wait(self._pause)
            self._pause = min(self._pause * 1.3, LATEST)
            payloads = [[]]
        elif self._ear is None:  # what was told meanwhile is missing
            self._listen()
            self._gap = True
        else:
            try:
                payloads = [orjson.loads(told) for told in self._ear.wait(LOOK)]
            except BaseException as error:
                self._lost(error)
        self._event.clear()
        found = [(id, body.encode()) for payload in payloads for id, body in payload]
        if [] in payloads and not self._closing:
            found += self._fetch()
        if found:
            self._pause = SOONEST
        return found

    def _fetch(self) -> list[tuple[str, bytes]]:
        database = self._store.database
        values = {"address": database.key(self.address)}
        read = database.sql(
            "SELECT seq, id, body FROM @notice WHERE address = %(address)s ORDER BY seq LIMIT 1000"
        )

        def take(session: Session) -> list[tuple[str, bytes]]:
            rows = session.rows(read, values)
            if rows:
                seqs = ",".join(str(row[0]) for row in rows)
                session.rows(database.sql(f"DELETE FROM @notice WHERE seq IN ({seqs})"))
            return [(bytes(row[1]).decode("utf-8", "surrogatepass"), bytes(row[2])) for row in rows]

        found = database.run(take)
        if len(found) == 1000:
            self.look()
        return found

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._store.inboxes.pop(self.address, None)
        if self._pid != os.getpid():  # a forked child: the thread and the watches are the parent's
            return
        self.look()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._ear is not None:
            self._call(self._ear.close)
        with suppress(FsdfError):  # they expire
            self._call(self._store.unwatch, self.address)
