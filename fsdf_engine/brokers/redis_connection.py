"""Connections to Redis for brokers and stores: one caller at a time, one write per call.

`connection.call(("LPUSH", q, body), SCRIPT(keys, arg))` of a `Connection(url, scripts)` sends all
commands in one write and returns their replies, raising the first error; `exchange` is the same
but leaves error replies in the list (`failure(reply)` is the exception to raise, or None).
`Connections` is one per native thread where sockets belong to a hub, and one that all share
otherwise. Both connect at the first call, reconnect at the next call after a failure, repeat
nothing that may have been sent, and open connections of their own after a fork.

The client library connects, authenticates and finds the server; what is sent and received then
goes through hiredis directly.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..errors import BrokerError, MissingExtra, ServerRefused, Unanswered, Unavailable
from .redis_route import TIMEOUT, Route
from .redis_wire import Silence, wire_over

try:
    import hiredis
    import redis
    from redis import exceptions
except ImportError as error:
    raise MissingExtra('Redis needs its client: pip install "fsdf[redis]"') from error

__all__ = [
    "ALWAYS", "Command", "Connection", "Connections", "Script", "Unanswered", "failure",
    "translated", "uptime_of",
]  # fmt: skip

Command: TypeAlias = tuple[Any, ...]  # str, bytes, int or float each
Sent: TypeAlias = Command | bytes  # as the client packs it
OLDEST = (6, 2)
STALE = 1.0  # seconds idle after which a connection is looked at before it is used
_MORE = object()
_PASSING = (
    "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY",
    "OOM", "MISCONF", "NOREPLICAS", "UNBLOCKED", "ERR max number of clients",
)  # fmt: skip
# The same, as the client says it.
_AWAY = (
    exceptions.AskError, exceptions.ClusterError, exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError, exceptions.TryAgainError,
)  # fmt: skip
_SECRETS = (exceptions.AuthenticationError, exceptions.AuthorizationError)


# What scripts of consumers begin with. A server at its memory limit refuses commands that may need
# memory, but not those of a script that has written before; and consumers make room. It does
# nothing: the key has no time to live, and is one in the lists of keys of all Redis brokers.
ALWAYS = "redis.call('PERSIST', KEYS[4])\n"


class Script:
    """A Lua script; calling it gives the command that runs it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[Any], *arguments: Any) -> Command:
        """Return the command that runs it on these keys."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


def _reason(reply: Any) -> str:
    """Return the text of an error reply; before Redis 7 a script's own words stand around it."""
    return re.sub(r"^ERR Error running script .*?: -(?=[A-Z]+ )", "", str(reply), flags=re.DOTALL)


def failure(reply: Any) -> Exception | None:
    """Return the exception for an error reply, or None for any other reply."""
    if not isinstance(reply, hiredis.ReplyError):
        return None
    text = _reason(reply)
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return ServerRefused(f"Redis wants another password ({text}); correct the URL")
    if text.startswith("NOPERM"):
        return ServerRefused(f"Redis forbids this user a command ({text}); extend its ACL")
    if text.startswith("WRONGTYPE"):
        return ServerRefused(f"a key of this queue is in other use ({text}); rename the queue")
    return (Unavailable if text.startswith(_PASSING) else BrokerError)(f"Redis answered: {text}")


def translated(error: BaseException, url: str) -> Exception | None:
    """Return what to raise for a failed attempt to connect; None: the error itself.

    The client's errors have no common root, and those of a cluster that is away, moving or not
    covered are of many classes: what it does not say to refuse us is an outage.
    """
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ServerRefused):
        return ServerRefused(f"{url}: {error}")
    if isinstance(error, _SECRETS):
        return ServerRefused(f"Redis at {url} refuses the password ({error}); correct the URL")
    answered = isinstance(error, redis.ResponseError) and not isinstance(error, _AWAY)
    if answered and not str(error).startswith(_PASSING):
        return ServerRefused(f"Redis at {url} refuses us ({error}); correct the URL")
    nodes = isinstance(error, exceptions.RedisClusterException) and error.__cause__
    if nodes and isinstance(told := translated(nodes, url), ServerRefused):
        return told
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ServerRefused(f"the certificate of Redis at {url} is not trusted; {error}")
    clients = type(error).__module__.partition(".")[0] == redis.__name__
    if clients or isinstance(error, (redis.RedisError, OSError, Unanswered)):
        return Unavailable(f"Redis at {url} cannot be reached ({text}); is it running?")
    return None


def uptime_of(info: Any) -> float:
    """Return how long the server has been up, from its `INFO server`; endless when it hides it.

    Raises:
        ServerRefused: it is older than 6.2.
    """
    if isinstance(info, hiredis.ReplyError):
        if str(info).startswith("NOAUTH"):
            raise ServerRefused("Redis wants a password; put it into the URL")
        return float("inf")
    facts = dict(re.findall(rb"^(\w+):([^\r\n]*)", info, re.MULTILINE))
    version = facts.get(b"redis_version", b"").decode()
    if (found := re.match(r"(\d+)\.(\d+)", version)) and tuple(map(int, found.groups())) < OLDEST:
        raise ServerRefused(f"Redis {version} is too old; update the server to 6.2 or later")
    return float(facts.get(b"uptime_in_seconds", b"inf"))


class Connection:
    """One connection; calls of several threads follow each other.

    `key` says whose node to connect to on a cluster. Once connected, `id` is the server's name for
    the connection, `started` the server's start on our monotonic clock, and `clock` what the
    server's time is ahead of that clock (infinite where it hides its time).
    """

    def __init__(self, url: str, scripts: Sequence[Script] = (), key: str = "") -> None:
        self._route, self._scripts = Route(url, key), scripts
        self.id, self.started, self.clock = 0, float("-inf"), float("inf")
        self._renew()

    def _renew(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._connection: Any = None
        self._wire: Any = None  # a Wire while it is usable
        self._used = 0.0

    def call(
        self,
        *commands: Sent,
        patience: float = 0.0,
        late: Callable[[], object] = int,
        first: Callable[[Any], float] | None = None,
        more: int = 0,
    ) -> list[Any]:
        """Send the commands, return their replies. Blocks; see `exchange`.

        Raises:
            Unavailable: nothing was sent, or the server was not ready. `Unanswered`: sent, and
                the answer did not come.
            ServerRefused: a wrong password, a forbidden command, a server too old.
            BrokerError: the first error reply of another kind, after all were read.
        """
        replies = self.exchange(commands, patience, late, first, more)
        for reply in replies:
            if type(reply) is hiredis.ReplyError and (error := failure(reply)):
                raise error
        return replies

    def exchange(
        self,
        commands: Sequence[Sent],
        patience: float = 0.0,
        late: Callable[[], object] = int,
        first: Callable[[Any], float] | None = None,
        more: int = 0,
    ) -> list[Any]:
        """Send the commands, return their replies, errors among them. Blocks.

        With `patience` the replies may take that many seconds before `late` is called, which must
        make the server answer. `first` is called with the first reply as soon as it is here, and
        returns the patience for the rest. The first of the commands may be bytes that hold `more`
        of them, which are no scripts.

        Raises:
            Unavailable, Unanswered, ServerRefused: as for `call`.
        """
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            try:
                self._connect()
                replies = self._exchange(commands, patience, late, first, more)
                again = [n for n, r in enumerate(replies) if type(r) is hiredis.ReplyError]
                if again:
                    self._repeat(commands, replies, again, more)
            except BaseException:
                self._drop()  # a reply that was not read would be taken for the next one's
                raise
        return replies

    def open(self) -> int:
        """Connect if need be; return `id`. A call that follows within a second does not reconnect.

        Raises:
            Unavailable, ServerRefused: as for `call`.
        """
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            self._connect()
            self._used = time.monotonic()
            return self.id

    def close(self) -> None:
        """Free the connection; the next call opens another. Idempotent."""
        if self._pid == os.getpid():
            with self._lock:
                self._drop()

    def _connect(self) -> None:
        if self._wire is not None and not self._stale():
            return
        self._drop()
        try:
            self._connection = self._route.connection()
            self._connection.connect()
            self._wire = wire_over(self._connection._sock, TIMEOUT)
            self._reader = hiredis.Reader(notEnoughData=_MORE)
            greeting: list[Sent] = [("CLIENT", "ID"), ("INFO", "server"), ("TIME",)]
            greeting += [("SCRIPT", "LOAD", script.text) for script in self._scripts]
            replies = self._exchange(greeting, 0.0, int, None)
            uptime = uptime_of(replies[1])
            if error := failure(replies[0]):
                raise error
            now, told = time.monotonic(), replies[2]
            self.id, self.started = replies[0], now - uptime
            if isinstance(told, list):
                self.clock = float(told[0]) + float(told[1]) / 1e6 - now
        except BaseException as error:
            self._drop()
            if told := translated(error, self._route.masked):
                raise told from error
            raise

    def _stale(self) -> bool:
        """Say whether the server has closed a connection that lay idle; blocks not."""
        return time.monotonic() - self._used >= STALE and bool(self._wire.has_ended())

    def _exchange(
        self,
        commands: Sequence[Sent],
        patience: float,
        late: Callable[[], object],
        first: Callable[[Any], float] | None,
        more: int = 0,
    ) -> list[Any]:
        wire, reader = self._wire, self._reader
        try:
            pack = hiredis.pack_command
            wire.send(b"".join([c if isinstance(c, bytes) else pack(c) for c in commands]))
            replies: list[Any] = self._oks(1 + more) if more else []
            end = time.monotonic() + patience if patience else 0.0
            while len(replies) < len(commands) + more:
                reply = reader.gets()
                if reply is _MORE:
                    end = self._receive(end, late)
                    continue
                replies.append(reply)
                if first and len(replies) == 1:
                    end = time.monotonic() + first(reply)
        except (OSError, hiredis.ProtocolError) as error:
            raise Unanswered(f"Redis at {self._route.masked} was lost: {error!r}") from error
        self._used = time.monotonic()
        return replies

    def _oks(self, count: int) -> list[Any]:
        """Return so many replies, none where not all of them say OK: then they are still to come.

        As they usually do, a comparison tells it, in place of a reply after the other.
        """
        said, expected = b"", b"+OK\r\n" * count
        while len(said) < len(expected) and expected.startswith(said):
            data = self._wire.receive()
            if not data:
                raise ConnectionResetError("closed by the server")
            said = said + data if said else data
        all_said = said.startswith(expected)
        self._reader.feed(said[len(expected) :] if all_said else said)
        return [b"OK"] * count if all_said else []

    def _receive(self, end: float, late: Callable[[], object]) -> float:
        """Read some bytes; return when to call `late`, 0.0 when that is not (or no longer) due."""
        try:
            data = self._wire.receive(max(0.0005, end - time.monotonic()) if end else 0.0)
        except Silence:
            if not end:
                raise
            late()
            return 0.0
        if not data:
            raise ConnectionResetError("closed by the server")
        self._reader.feed(data)
        return end

    def _repeat(
        self, commands: Sequence[Sent], replies: list[Any], errors: list[int], more: int
    ) -> None:
        """Send once more what the server surely did not execute: unknown scripts, moved keys."""
        texts = [_reason(replies[n]) for n in errors]
        if broken := [text for text in texts if text.startswith("ERR Protocol error")]:
            raise Unanswered(f"Redis at {self._route.masked} hangs up: {broken[0]}")
        moved = [text.startswith("MOVED") for text in texts]
        if self._route.kind == "cluster" and any(moved):
            self._drop()  # the next call finds the new node
            if len(errors) == len(commands) + more and all(moved):
                self._connect()
                replies[:] = self._exchange(commands, 0.0, int, None, more)
            return
        unknown = [n for n, text in zip(errors, texts) if text.startswith("NOSCRIPT")]
        if unknown:
            loads = [("SCRIPT", "LOAD", script.text) for script in self._scripts]
            answers = self._exchange(
                [*loads, *[commands[n - more] for n in unknown]], 0.0, int, None
            )
            for n, answer in zip(unknown, answers[len(loads) :]):
                replies[n] = answer
        if any(text.startswith("READONLY") for text in texts):
            self._drop()  # a former master: ask again for the address

    def _drop(self) -> None:
        connection, self._connection, self._wire = self._connection, None, None
        if connection is not None:
            connection.disconnect()


class Connections:
    """Lines to one server for callers in any thread."""

    def __init__(self, url: str, scripts: Sequence[Script] = ()) -> None:
        self._url, self._scripts = url, scripts
        self._connections: dict[tuple[int, str], Connection] = {}
        self.many = "+cluster" in url.partition("://")[0]  # nodes, each with its keys
        self.to()  # a wrong URL is an error now

    def to(self, key: str = "") -> Connection:
        """Return the one that this thread uses, on a cluster to the node of `key`."""
        # a green socket belongs to the hub of the native thread that made it
        thread = 0 if socket.socket.__module__ == "socket" else threading.get_native_id()
        place = (thread, key if self.many else "")
        found = self._connections.get(place)
        return found or self._connections.setdefault(
            place, Connection(self._url, self._scripts, key)
        )

    def close(self) -> None:
        """Free every connection; the next call opens another. Idempotent."""
        for connection in list(self._connections.values()):
            connection.close()
