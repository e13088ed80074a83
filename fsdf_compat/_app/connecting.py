"""Kombu's connections and producers, for what is no task: remote control, events, users' own."""

from __future__ import annotations

from typing import Any

from kombu import pools
from kombu.exceptions import LimitExceeded

from .._upward import LateModule
from ..exceptions import OperationalError
from ..utils.objects import FallbackContext
from .places import TIMEOUTS

__all__ = [
    "acquire_connection", "acquire_producer", "connect", "connection", "connection_for_read",
    "connection_for_write", "connection_or_acquire", "pool", "producer_or_acquire",
]  # fmt: skip

_driver = LateModule("backends.database.driver")
_REDIS = ("redis:", "rediss:", "sentinel:")


def connection_for_read(self: Any, url: Any = None, **kwargs: Any) -> Any:
    """Return a connection to the broker from which workers fetch. Opens nothing."""
    return self._connection(url or self.conf.broker_read_url, **kwargs)


def connection_for_write(self: Any, url: Any = None, **kwargs: Any) -> Any:
    """Return a connection to the broker to which messages are published. Opens nothing."""
    return self._connection(url or self.conf.broker_write_url, **kwargs)


def connection(
    self: Any, hostname: Any = None, userid: Any = None, password: Any = None,
    virtual_host: Any = None, port: Any = None, ssl: Any = None, connect_timeout: Any = None,
    transport: Any = None, transport_options: Any = None, heartbeat: Any = None,
    login_method: Any = None, failover_strategy: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Return a connection to the broker, or to `hostname`, which may be a URL. Opens nothing."""
    return self.connection_for_write(
        hostname or self.conf.broker_write_url, userid=userid, password=password,
        virtual_host=virtual_host, port=port, ssl=ssl, connect_timeout=connect_timeout,
        transport=transport, transport_options=transport_options, heartbeat=heartbeat,
        login_method=login_method, failover_strategy=failover_strategy, **kwargs,
    )  # fmt: skip


def connect(
    self: Any, url: Any, userid: Any = None, password: Any = None, virtual_host: Any = None,
    port: Any = None, ssl: Any = None, connect_timeout: Any = None, transport: Any = None,
    transport_options: Any = None, heartbeat: Any = None, login_method: Any = None,
    failover_strategy: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Return kombu's connection to a URL, with what the settings say.

    SQLite is a broker of the engine's, not of kombu's, so there it is one within this process.
    """
    conf, within = self.conf, self.either("broker_connection_timeout", connect_timeout)
    if isinstance(url, str) and url.startswith("sqlite:"):
        url, transport = "memory://", None
    if isinstance(url, str) and url.startswith("sqla+"):
        url = "sqla+" + _driver.installed(url.removeprefix("sqla+"))
    options = {**conf.broker_transport_options, **(transport_options or {})}
    if within and isinstance(url, str) and url.startswith(_REDIS):
        # kombu by itself waits for ever for the first answer of a server that hangs
        options = {**dict.fromkeys(TIMEOUTS, within), **options}
    return self.amqp.Connection(
        url,
        userid or conf.broker_user,
        password or conf.broker_password,
        virtual_host or conf.broker_vhost,
        port or conf.broker_port,
        transport=transport or conf.broker_transport,
        ssl=self.either("broker_use_ssl", ssl),
        heartbeat=heartbeat,
        login_method=login_method or conf.broker_login_method,
        failover_strategy=failover_strategy or conf.broker_failover_strategy,
        transport_options=options,
        connect_timeout=within,
    )


def acquire_connection(self: Any, pool: bool = True) -> Any:
    """Return a connection of the pool, or without `pool` a new one. Blocks while all are in use.

    Raises:
        kombu.exceptions.OperationalError: none became free in time.
    """
    if not pool:
        return self.connection_for_write()
    timeout = self.conf.broker_pool_acquire_timeout
    try:
        return self.pool.acquire(block=True, timeout=timeout)
    except LimitExceeded as error:
        raise _exhausted(self, "connection", "connections are", timeout) from error


def acquire_producer(self: Any, timeout: float | None = None) -> Any:
    """Return a producer of the pool. Blocks while all are in use.

    Raises:
        kombu.exceptions.OperationalError: none became free in time.
    """
    try:
        return self.producer_pool.acquire(block=True, timeout=timeout)
    except LimitExceeded as error:
        raise _exhausted(self, "producer", "producer slots are", timeout) from error


def _exhausted(app: Any, what: str, all_are: str, timeout: float | None) -> Exception:
    limit = app.conf.broker_pool_limit
    error: Exception = OperationalError(
        f"no broker {what} became free in {timeout}s: all {limit} {all_are} in use; raise"
        f" broker_pool_limit (now {limit}) or broker_pool_acquire_timeout (now {timeout}s)"
    )
    return error


def connection_or_acquire(
    self: Any, connection: Any = None, pool: bool = True, *_: Any, **__: Any
) -> Any:
    """Return a context of the given connection, or of one of the pool."""
    return FallbackContext(connection, self._acquire_connection, pool=pool)


def producer_or_acquire(self: Any, producer: Any = None) -> Any:
    """Return a context of the given producer, or of one of the pool."""
    timeout = self.conf.broker_pool_acquire_timeout
    return FallbackContext(producer, self._acquire_producer, timeout=timeout)


def pool(self: Any) -> Any:
    """Return kombu's pool of connections to the broker."""
    if self._pool is None:
        self._ensure_after_fork()
        pools.set_limit(self.conf.broker_pool_limit)
        self._pool = pools.connections[self.connection_for_write()]
    return self._pool
