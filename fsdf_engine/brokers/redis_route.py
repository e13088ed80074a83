"""Where a Redis URL leads: one server, the master of a Sentinel group, or a node of a cluster.

URLs: `redis://[[user]:password@]host:port/db`, `rediss://` (TLS), `unix:///path?db=0`,
`redis+sentinel://[user:password@]host:port,host:port/service/db[?sentinel_password=...]`,
`redis+cluster://` and `rediss+cluster://host:port`. A query passes options of redis-py.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigurationError, MissingExtra
from ..spelling import masked

try:
    import redis
    import redis.backoff
    import redis.cluster
    import redis.retry
    import redis.sentinel
except ImportError as error:
    raise MissingExtra('Redis needs its client: pip install "fsdf[redis]"') from error

__all__ = ["TIMEOUT", "Route"]

_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")
_TIMED = re.compile(
    r"(?<=[?&])(?:socket_connect_timeout|socket_timeout)=[\d.]*(?:&|\Z)"
)  # no place
TIMEOUT = 5.0  # seconds to connect, and for each answer
_ASKED = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds idle, between, tries
_KEEPALIVE = {getattr(socket, k): n for k, n in _ASKED.items() if hasattr(socket, k)}


class _Wrong(ValueError):
    """What is wrong with a URL, in words of ours that quote nothing of it."""


def _sound(scheme: str, rest: str) -> bool:
    """Say whether the credentials end where a parser sees their end, so that no part of a password
    is taken for a host, a path or an option."""
    host, path = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if scheme == "unix" and "@" not in host:
        return not host
    return "@" not in path


def _names_database(rest: str) -> bool:
    path = urlsplit(f"//{rest}").path.strip("/")
    return not path or (path.isascii() and path.isdecimal())


def _check_files(options: dict[str, Any]) -> None:
    """Look for the files of TLS now: the client does so when it connects, as if in an outage."""
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if (path := options.get(name)) and not os.path.exists(path):
            raise _Wrong(f"{name}={path!r}: there is no such file")


class Route:
    """Where a URL leads: makes unconnected connections, asking for the address where needed."""

    def __init__(self, url: str, key: str) -> None:
        # what has no scheme is no path here, as which it would be shown
        shown = _TIMED.sub("", url)
        shown = url if shown == url else shown.rstrip("?&")
        self.masked = (
            masked(shown) if "://" in shown else masked(f"redis://{shown}")[len("redis://") :]
        )
        self._key = key
        scheme, _, rest = url.partition("://")
        self._scheme, plus, self.kind = scheme.partition("+")
        try:
            if self._scheme not in ("redis", "rediss", "unix") or (plus and not self._finds()):
                raise _Wrong("use redis://, rediss://, unix://, redis+sentinel:// or +cluster")
            if not _sound(self._scheme, rest):
                raise _Wrong("write / ? # and @ in a password or an option as %2F %3F %23 %40")
            if self.kind == "sentinel":
                rest = self._sentinels(rest)
            if self._scheme != "unix" and not _names_database(rest):  # the client would take 0
                raise _Wrong("what follows the host is no number of a database, such as /0")
            pool = redis.ConnectionPool.from_url(f"{self._scheme}://{rest}")
            _check_files(pool.connection_kwargs)
        except (ValueError, TypeError) as error:
            place = url.partition("?")[0]
            quotes = masked(place) != place and not isinstance(error, _Wrong)  # the password, too
            reason = "compare with redis://:password@host:6379/0" if quotes else error
            raise ConfigurationError(f"wrong Redis URL {self.masked!r}: {reason}") from None
        self._class = pool.connection_class
        self._options: dict[str, Any] = {
            "socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
            **pool.connection_kwargs, "protocol": 2, "decode_responses": False,
            "health_check_interval": 0, "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        }  # fmt: skip
        if self._scheme == "unix":
            del self._options["socket_keepalive"], self._options["socket_keepalive_options"]
        try:
            self._class(**self._options)  # not connected: a wrong option is an error now
        except (redis.RedisError, TypeError) as error:
            raise ConfigurationError(f"wrong Redis URL {self.masked!r} ({error})") from None

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._options.get("db") or 0)

    def is_beside(self, other: Route) -> bool:
        """Say whether another one leads to the same server, alone, by the same user."""
        return self.kind == other.kind == "" and self._place() == other._place()

    def _place(self) -> tuple[Any, ...]:
        names = ("host", "port", "path", "username", "password")
        return self._class, *map(self._options.get, names)

    def _finds(self) -> bool:
        return self.kind in ("sentinel", "cluster") and self._scheme != "unix"

    def _sentinels(self, rest: str) -> str:
        """Take the sentinels and the service from `rest`; return the server's own part of it."""
        parts = urlsplit(f"//{rest}")
        user, at, hosts = parts.netloc.rpartition("@")
        pairs = [host.rpartition(":") for host in hosts.split(",")]
        self._hosts = [(h, int(p)) if colon else (p, 26379) for h, colon, p in pairs]
        self._service, _, db = parts.path.strip("/").partition("/")
        if not self._service:
            raise _Wrong("name the service: redis+sentinel://host:port/service/db")
        query = dict(parse_qsl(parts.query))
        self._secret = unquote(query.pop("sentinel_password", "")) or None
        options = "&".join(f"{k}={v}" for k, v in query.items())
        return f"{user}{at}localhost/{db}" + (f"?{options}" if options else "")

    def connection(self) -> Any:
        """Return a connection to be connected. Blocks where the address must be asked for."""
        options = self._options
        if self.kind == "sentinel":
            finder: Any = redis.sentinel.Sentinel
            ask = finder(self._hosts, socket_timeout=TIMEOUT, password=self._secret)
            host, port = ask.discover_master(self._service)
            options = {**options, "host": host, "port": port}
        elif self.kind == "cluster":
            names = ("host", "port", "username", "password", "retry", *_TIMEOUTS)
            known = {k: v for k, v in options.items() if k in names or k.startswith("ssl_")}
            tls = self._scheme == "rediss"
            cluster: Any = redis.cluster.RedisCluster(**known, ssl=tls, protocol=2)
            try:
                node = cluster.get_node_from_key(self._key)
            finally:
                cluster.close()
            options = {**options, "host": node.host, "port": node.port}
        return self._class(**options)
