"""What the URL of an SQL database says: the server, how to connect, and what is ours in it.

    postgresql://user:password@host:5432/database?sslmode=require&schema=queues&pool_size=5
    mysql://user:password@host/database?ssl_ca=/path&connect_timeout=5

A driver that a URL names is passed over: PostgreSQL is spoken to by psycopg, MariaDB and MySQL by
PyMySQL. `schema` (PostgreSQL), `pool_size` and `listen` are ours; the rest is the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigurationError, MissingExtra
from ..spelling import masked

try:
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError
except ImportError as error:
    raise MissingExtra('SQL databases need SQLAlchemy: pip install "fsdf[sql]"') from error

__all__ = ["CONNECT_TIMEOUT", "OURS", "Place", "is_sqlite", "place_of"]

CONNECT_TIMEOUT = 10  # seconds
OURS = ("schema", "pool_size", "listen")  # options that are no client's
SPARE = 5  # connections that stay open while nobody needs them
# What names a database to PyMySQL, or a file that may; PostgreSQL has one for each user.
_NAMING = {"database", "db", "read_default_file", "read_default_group"}
_PRODUCTS = {
    "postgresql": ("postgresql", "postgresql+psycopg"),
    "postgres": ("postgresql", "postgresql+psycopg"),
    "mysql": ("mysql", "mysql+pymysql"),
    "mariadb": ("mysql", "mariadb+pymysql"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is, read from its URL."""

    product: str  # postgresql or mysql
    arguments: Mapping[str, Any] = field(repr=False)  # of the client's `connect`
    schema: str  # of PostgreSQL; "" the user's own
    spare: int
    listen: str = field(repr=False)  # another URL at which notifications arrive, or ""
    shown: str  # without passwords


def is_sqlite(url: str) -> bool:
    """Say whether a URL names a SQLite file."""
    return url.partition("://")[0].partition("+")[0].strip().lower() == "sqlite"


def place_of(url: str) -> Place:
    """Read a URL.

    Raises:
        ConfigurationError: it names no database that this version can use.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f"{masked(url)!r} is no URL of a database; write one like"
            " postgresql://user:password@host/database in broker_url or SQLALCHEMY_URL"
        ) from error
    name = parsed.drivername.partition("+")[0].lower()
    if name not in _PRODUCTS:
        raise ConfigurationError(
            f"{masked(url)!r} names {name!r}; there are postgresql, mysql, mariadb and sqlite"
        )
    product, driver = _PRODUCTS[name]
    ours = {key: _text(parsed, key) for key in OURS}
    rest = parsed.set(drivername=driver).difference_update_query(OURS)
    arguments = _arguments(rest, url)
    if ours["schema"] and product == "mysql":
        raise ConfigurationError(
            f"{masked(url)!r} has a schema=, which only PostgreSQL knows; name another database"
        )
    if product == "mysql" and not arguments.keys() & _NAMING:
        raise ConfigurationError(
            f"{masked(url)!r} names no database; write {name}://user:password@host/database"
        )
    spare = _number(ours["pool_size"] or SPARE, "pool_size", url, 0)
    shown = masked(parsed.set(query={}).render_as_string(hide_password=False))
    return Place(product, arguments, ours["schema"], spare, ours["listen"], shown)


def _arguments(rest: URL, url: str) -> Mapping[str, Any]:
    """Return what the client's `connect` takes."""
    try:
        arguments = rest.get_dialect()().create_connect_args(rest)[1]
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f"an option of {masked(url)!r} cannot be read ({error}); correct broker_url or"
            " SQLALCHEMY_URL"
        ) from error
    arguments.setdefault("connect_timeout", CONNECT_TIMEOUT)
    arguments["connect_timeout"] = _number(arguments["connect_timeout"], "connect_timeout", url, 1)
    return arguments


def _text(url: URL, key: str) -> str:
    value = url.query.get(key, "")
    return value if isinstance(value, str) else value[-1]


def _number(value: object, name: str, url: str, least: int) -> int:
    try:
        if (number := int(str(value))) >= least:
            return number
    except ValueError:
        pass
    raise ConfigurationError(f"{name}={value!r} in {masked(url)!r} must be {least} or more")
