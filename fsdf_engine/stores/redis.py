"""Results in Redis: a string per task id, and channels that tell the inboxes.

Key `fsdf:result:<id>` holds `<deliveries>` and `F` (final) or `P`, then the body. A final record is
published, id and body, on the inbox's channel that the message carried and on the key's own name,
to which `watch` subscribes: the server forgets a waiter together with its connection.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import hiredis

from ..brokers.redis_line import Command, Line, Lines, Script
from ..brokers.redis_route import Route
from ..contracts import Inbox, Record, ResultStore
from ..errors import Unavailable
from .base import Deliver, guarded

__all__ = ["RedisStore"]

_log = logging.getLogger("fsdf.stores")
IDLE = 30.0  # seconds of silence after which the connection of an inbox is tried
BACKOFF = (0.05, 5.0)  # seconds: the first pause of a reconnecting inbox, and the longest
_SHARDS = 16  # hash tags on a cluster, each with one connection
_CHUNK = 500  # records a script call
_KEPT = re.compile(rb"\d+([FP])")

# KEYS: one per record. ARGV: six per record: id, deliveries, F or P, milliseconds, body, reply.
# Reply: how many were stored. O(records). Refused: what is older, and what is not final over final.
_WRITE = Script("""
local stored = 0
for i, key in ipairs(KEYS) do
    local a = i * 6 - 5
    local kept = redis.call('GETRANGE', key, 0, 20)
    local deliveries, kind = string.match(kept, '^(%d+)([FP])')
    local kind_now = ARGV[a + 2]
    if not kind or (tonumber(deliveries) <= tonumber(ARGV[a + 1])
            and (kind == 'P' or kind_now == 'F')) then
        redis.call('SET', key, ARGV[a + 1] .. kind_now .. ARGV[a + 4], 'PX', ARGV[a + 3])
        stored = stored + 1
        if kind_now == 'F' then
            local notice = ARGV[a] .. '\\n' .. ARGV[a + 4]
            if ARGV[a + 5] ~= '' then
                redis.call('PUBLISH', ARGV[a + 5], notice)
            end
            redis.call('PUBLISH', key, notice)
        end
    end
end
return stored
""")


class RedisStore(ResultStore):
    """Results in Redis 6.2 or later, alone, behind Sentinel, or a cluster."""

    setting: ClassVar[str] = "REDIS_URL"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lines = Lines(url, [_WRITE])
        self._cluster = "+cluster" in url.partition("://")[0]

    def key(self, id: str) -> str:
        """Return the key of a result; also the channel that tells of it."""
        if not self._cluster:
            return f"fsdf:result:{id}"
        shard = zlib.crc32(id.encode("utf-8", "surrogatepass")) % _SHARDS
        return f"{{fsdf:{shard}}}:result:{id}"

    def _by_line(self, ids: Sequence[str]) -> Mapping[Line, list[int]]:
        """Return the positions of the ids by the connection that leads to them."""
        if not self._cluster:
            return {self._lines.line(): list(range(len(ids)))}
        groups: defaultdict[Line, list[int]] = defaultdict(list)
        for n, id in enumerate(ids):
            groups[self._lines.line(self.key(id).partition("}")[0] + "}")].append(n)
        return groups

    def write(self, records: Sequence[Record]) -> None:
        for line, places in self._by_line([record.id for record in records]).items():
            commands: list[Command] = []
            for start in range(0, len(places), _CHUNK):
                chunk = [records[n] for n in places[start : start + _CHUNK]]
                arguments: list[Any] = []
                for r in chunk:
                    life = max(1, int(r.expires * 1000))
                    kind = "F" if r.final else "P"
                    arguments += (r.id, r.deliveries, kind, life, r.body, r.reply)
                commands.append(_WRITE([self.key(r.id) for r in chunk], *arguments))
            line.call(*commands)

    def read(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        return self.stored(ids, final=False)

    def stored(self, ids: Sequence[str], *, final: bool) -> dict[str, bytes]:
        """Return the bodies of these, of the final ones only if so asked."""
        found: dict[str, bytes] = {}
        for line, places in self._by_line(ids).items():
            for start in range(0, len(places), 1000):
                chunk = [ids[n] for n in places[start : start + 1000]]
                [values] = line.call(("MGET", *map(self.key, chunk)))
                for id, value in zip(chunk, values):
                    kept = _KEPT.match(value) if value else None
                    if kept and (not final or kept[1] == b"F"):
                        found[id] = value[kept.end() :]
        return found

    def forget(self, ids: Sequence[str]) -> int:
        count = 0
        for line, places in self._by_line(ids).items():
            if places:
                count += line.call(("UNLINK", *[self.key(ids[n]) for n in places]))[0]
        return count

    def inbox(
        self, deliver: Callable[[str, bytes], None], pending: Callable[[], Sequence[str]]
    ) -> Inbox:
        return _RedisInbox(self, guarded(deliver), pending)

    def poke(self, channel: str) -> None:
        """Send an empty message: whoever listens there looks at what it has to do."""
        self._lines.line().call(("PUBLISH", channel, b""))

    def close(self) -> None:
        self._lines.close()


class _RedisInbox(Inbox):
    """One thread owns the connection; others ask it by a poke on its own channel."""

    def __init__(
        self, store: RedisStore, deliver: Deliver, pending: Callable[[], Sequence[str]]
    ) -> None:
        self._store, self._deliver, self._pending = store, deliver, pending
        self.address = f"fsdf:inbox:{uuid.uuid4().hex}"
        self._route = Route(store.url, self.address)
        self._lock = threading.Lock()  # guards the next two
        self._watched: dict[str, str] = {}  # channel: id
        self._asked: list[str] = []  # channels to subscribe to
        self._closing = threading.Event()
        self._connection: Any = None
        self._pause = BACKOFF[0]
        self._thread = threading.Thread(target=self._run, name="fsdf-inbox", daemon=True)
        self._thread.start()

    def watch(self, ids: Sequence[str]) -> None:
        channels = {self._store.key(id): id for id in ids}
        with self._lock:
            self._watched.update(channels)
            self._asked += channels
        try:
            self._store.poke(self.address)
        except Unavailable:
            pass  # the inbox reconnects, too, and subscribes to all that is watched

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._connection = self._route.connection()
                self._connection.connect()
                self._receive(self._connection._sock)
            except Exception as error:
                # The loop's edge: whatever ended the connection, the next one may work.
                if not self._closing.is_set():
                    _log.warning("the inbox lost Redis", extra={"error": repr(error)})
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
            subscribe: Command = ("SUBSCRIBE", self.address, *self._watched)
        sock.sendall(hiredis.pack_command(subscribe))
        while not self._closing.is_set():
            try:
                sock.settimeout(IDLE)
                data = sock.recv(1 << 16)
            except socket.timeout:  # noqa: UP041 - another class than TimeoutError under eventlet
                if quiet:
                    raise
                quiet = True
                sock.sendall(hiredis.pack_command(("PING",)))
                continue
            if not data:
                raise ConnectionResetError("closed by the server")
            quiet = False
            reader.feed(data)
            messages = []
            while (message := reader.gets()) is not False:
                messages.append(message)
            for command in self._handle(messages):
                sock.sendall(hiredis.pack_command(command))

    def _handle(self, messages: Sequence[Any]) -> list[Command]:
        """Deliver what came; return what to ask of the server."""
        unread: set[str] = set()
        over: list[str] = []  # channels
        for message in messages:
            if isinstance(message, hiredis.ReplyError):
                raise message
            kind, channel = message[0], message[1].decode()
            if kind == b"subscribe":
                unread |= self._subscribed(channel)
            elif kind == b"message" and message[2]:
                id, _, body = message[2].partition(b"\n")
                self._deliver(id.decode(), body)
                if channel != self.address:
                    over.append(channel)
        if unread:
            found = self._store.stored(list(unread), final=True)
            for id, body in found.items():
                self._deliver(id, body)
            over += map(self._store.key, found)
        with self._lock:
            asked, self._asked = self._asked, []
            over = [channel for channel in over if self._watched.pop(channel, None)]
        wanted = [("SUBSCRIBE", *asked)] if asked else []
        return wanted + ([("UNSUBSCRIBE", *over)] if over else [])

    def _subscribed(self, channel: str) -> set[str]:
        """Return whose results may have come before this subscription."""
        if channel == self.address:
            self._pause = BACKOFF[0]
            return set(self._pending())
        with self._lock:
            return {self._watched[channel]} if channel in self._watched else set()

    def close(self) -> None:
        self._closing.set()
        connection = self._connection
        if connection is not None and (sock := connection._sock) is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        if self._thread is not threading.current_thread():
            self._thread.join()
