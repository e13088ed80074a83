"""One connection to an SQL server: statements, transactions, what was sent when it is lost.

Statements stand alone (autocommit) unless they are in a transaction. Values are `%(name)s`.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

from ..errors import ConfigurationError, MissingExtra, ServerRefused
from ..spelling import did_you_mean
from ..unpatched import unpatched
from .sql_place import OURS, Place

__all__ = ["PATIENCE", "MySqlSession", "PostgresSession", "Row", "Session", "Values", "session_to"]

Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Mapping[str, Any]
PATIENCE = 60.0  # seconds that a server may take to answer, before its connection counts as lost
LARGEST = 256 << 20  # bytes of one statement, where the server has no lower limit
STALLED = 15  # seconds that a transaction may lie idle: its owner is frozen, and others wait
UNREAD = 60  # seconds that PostgreSQL waits for who does not read on; MariaDB's own default
STALE = 1.0  # seconds idle after which a connection is looked at before it is used
_NONE: Values = {}
_ESCAPED = (b"\0", b"\n", b"\r", b"\x1a", b'"', b"'", b"\\")


class Session(ABC):
    """Used by one thread at a time."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.used_at = time.monotonic()
        self.sent = False  # whether what was not answered may have taken effect
        self.largest = 1 << 30  # bytes of one statement
        self.began_at = 0.0  # when the server began (`time.monotonic`)

    @abstractmethod
    def rows(self, sql: str, values: Values = _NONE) -> list[Row]:
        """Execute one statement; return what it gives. One round trip. Raises as the client."""

    @abstractmethod
    def count(self, sql: str, values: Values = _NONE) -> int:
        """Execute one statement; return how many rows it has changed, or found. One round trip."""

    def many(self, *statements: tuple[str, Values]) -> list[list[Row]]:
        """Execute statements in order; return what each gives. In one round trip where possible."""
        return [self.rows(sql, values) for sql, values in statements]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, or roll back. What is lost within has changed nothing."""
        self.begin()
        self.sent = False
        yield  # whoever gets an exception rolls back, or closes
        self.sent = True
        self.rows("COMMIT")

    def begin(self) -> None:
        """Begin a transaction. One round trip."""
        self.rows("BEGIN")

    def grace(self, lease: float) -> float:
        """Return for how many seconds nothing may be reaped: owners extend first."""
        return self.began_at + lease / 3 + 1.0 - time.monotonic()

    @abstractmethod
    def descriptor(self) -> int:
        """Return the socket's number."""

    def is_over(self) -> bool:
        """Say whether the server has closed a connection that lay idle; blocks not."""
        if time.monotonic() - self.used_at < STALE:
            return False
        try:
            ready, _, _ = _select()([self.descriptor()], [], [], 0)
        except (OSError, ValueError):
            return True
        return bool(ready)  # nobody tells us anything unasked but the end

    def length(self, body: bytes) -> int:
        """Return how many bytes of a statement a value takes."""
        return len(body)

    def close(self) -> None:
        """Free it; never raises."""
        with contextlib.suppress(Exception):
            self.raw.close()


class PostgresSession(Session):
    """A connection by psycopg."""

    def rows(self, sql: str, values: Values = _NONE) -> list[Row]:
        with self.raw.cursor(binary=True) as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def count(self, sql: str, values: Values = _NONE) -> int:
        with self.raw.cursor() as cursor:
            cursor.execute(sql, values)
            return int(cursor.rowcount)

    def begin(self) -> None:
        # For this transaction only: behind a pooler others have the connection after us.
        limit = f"SET LOCAL idle_in_transaction_session_timeout = '{STALLED}s'"
        with self.raw.cursor() as cursor:
            cursor.execute(f"BEGIN; {limit}")

    def descriptor(self) -> int:
        return int(self.raw.pgconn.socket)


class MySqlSession(Session):
    """A connection by PyMySQL, which may send several statements at a time."""

    def rows(self, sql: str, values: Values = _NONE) -> list[Row]:
        return self.many((sql, values))[-1]

    def count(self, sql: str, values: Values = _NONE) -> int:
        with self.raw.cursor() as cursor:
            return int(cursor.execute(sql, values))

    def many(self, *statements: tuple[str, Values]) -> list[list[Row]]:
        with self.raw.cursor() as cursor:
            cursor.execute(";".join(cursor.mogrify(sql, values) for sql, values in statements))
            found = [_fetched(cursor)]
            while cursor.nextset():
                found.append(_fetched(cursor))
        return found

    def descriptor(self) -> int:
        return int(self.raw._sock.fileno())

    def length(self, body: bytes) -> int:
        return len(body) + sum(map(body.count, _ESCAPED))


@cache
def _select() -> Any:
    """Return `select.select`, unpatched."""
    return unpatched("select").select


def _fetched(cursor: Any) -> list[Row]:
    return list(cursor.fetchall()) if cursor.description else []


def session_to(place: Place) -> Session:
    """Connect.

    Raises:
        MissingExtra: there is no client; else as the client.
        ConfigurationError: the client has no such option.
        ServerRefused: the server is too old.
    """
    return _to_postgresql(place) if place.product == "postgresql" else _to_mysql(place)


def _check_options(place: Place, known: Iterable[str]) -> None:
    for name in place.arguments:
        if name not in known:
            raise ConfigurationError(
                f"option {name!r} in broker_url or SQLALCHEMY_URL is unknown"
                f"{did_you_mean(name, (*known, *OURS))}"
            )


def _to_postgresql(place: Place) -> Session:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra('PostgreSQL needs its client: pip install "fsdf[postgresql]"') from error
    known = [option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()]
    _check_options(place, known)
    raw = psycopg.Connection.connect(
        autocommit=True, prepare_threshold=None, **{**_KEEPALIVE, **place.arguments}
    )
    session = PostgresSession(raw)
    waiting = psycopg.waiting
    if not (wait := getattr(waiting, "wait_c", None)):  # which no patching makes a greenlet's
        wait = waiting.wait

    def patient(gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """A server that has accepted us and then hangs is lost."""
        return wait(gen, raw.pgconn.socket, interval, PATIENCE if timeout is None else timeout)

    raw.wait = patient  # type: ignore[method-assign]
    values = {"pid": raw.info.backend_pid, "unread": f"{UNREAD}s"}
    [(version, isolation, uptime, _)] = session.rows(_OPENING, values)
    session.began_at = time.monotonic() - uptime
    if version < 120000:
        raise ServerRefused(
            f"{place.shown} is PostgreSQL {version // 10000}; 12 or later is needed"
        )
    if isolation != "read committed":
        session.rows("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
    session.largest = LARGEST
    return session


# Statistics may be of when the queue was short: its rows are found by an index all the same.
# Behind a pooler others have what is set after us.
_OPENING = """
SELECT current_setting('server_version_num')::int,
    current_setting('default_transaction_isolation'),
    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8,
    CASE WHEN current_setting('server_version_num')::int >= 120000 AND pg_backend_pid() = %(pid)s
        THEN set_config('tcp_user_timeout', %(unread)s, false)
            || set_config('enable_seqscan', 'off', false)
            || set_config('enable_bitmapscan', 'off', false)
            || set_config('jit', 'off', false) END
"""
_KEEPALIVE = {
    "application_name": "fsdf", "keepalives_idle": 30, "keepalives_interval": 10,
    "keepalives_count": 3,
}  # fmt: skip
_TLS = ("ssl_capath", "ssl_cipher", "ssl_check_hostname")  # which SQLAlchemy makes others of
# A claim waits for nobody's lock for long; text that does not fit is refused, not cut.
_SETTINGS = """
SET SESSION autocommit = 1, SESSION time_zone = '+00:00', SESSION innodb_lock_wait_timeout = 10,
    SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'
"""


def _to_mysql(place: Place) -> Session:
    try:
        pymysql = unpatched("pymysql")
        client: Any = unpatched("pymysql.constants.CLIENT")
    except ImportError as error:
        raise MissingExtra('MySQL needs its client: pip install "fsdf[mysql]"') from error
    _check_options(place, (*inspect.signature(pymysql.connect).parameters, *_TLS))
    given = dict(place.arguments)
    flags = client.MULTI_STATEMENTS | client.FOUND_ROWS | given.pop("client_flag", 0)
    patience = given.pop("read_timeout", PATIENCE), given.pop("write_timeout", PATIENCE)
    given |= {"charset": "utf8mb4", "client_flag": flags, "autocommit": None}
    # The greeting of a server that hangs is waited for no longer than its connection.
    given |= dict.fromkeys(("read_timeout", "write_timeout"), given["connect_timeout"])
    try:
        raw = pymysql.connect(**given | {"defer_connect": True})
    except OSError as error:  # no server was asked yet
        raise ConfigurationError(
            f"the certificates of {place.shown} cannot be loaded ({error}); correct ssl_ca,"
            " ssl_cert and ssl_key in broker_url or SQLALCHEMY_URL"
        ) from error
    raw.connect()
    raw._read_timeout, raw._write_timeout = patience
    session = MySqlSession(raw)
    [(version, largest)] = session.rows("SELECT version(), @@max_allowed_packet")
    _check_version(place, version)
    [(_, uptime)] = session.rows("SHOW GLOBAL STATUS LIKE 'Uptime'")
    session.began_at = time.monotonic() - float(uptime)
    session.largest = min(int(largest), LARGEST)
    settings = ["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", _SETTINGS]
    if "MariaDB" in version:  # MySQL has nothing like it
        settings.append(f"SET SESSION idle_transaction_timeout = {STALLED}")
    session.many(*((sql, _NONE) for sql in settings))
    return session


def _check_version(place: Place, version: str) -> None:
    """Refuse a server that has no SKIP LOCKED, or no index in two directions."""
    found = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)", version)
    numbers = tuple(map(int, found.groups())) if found else (0, 0, 0)
    least, name = ((10, 8, 0), "MariaDB") if "MariaDB" in version else ((8, 0, 16), "MySQL")
    if numbers < least:
        raise ServerRefused(
            f"{place.shown} is {name} {version}; {'.'.join(map(str, least))} or later is needed,"
            " for SKIP LOCKED: update the server, or use another broker"
        )
