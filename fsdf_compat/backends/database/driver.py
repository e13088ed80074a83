"""With which client library a database is reached."""

from __future__ import annotations

import importlib
import os
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fsdf_engine import masked

from ...exceptions import ImproperlyConfigured

__all__ = ("installed", "other_driver", "patient")
CONNECT_TIMEOUT = 10  # seconds
_LIBPQ = ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")
_OURS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}  # of our extras


def other_driver(dburi: Any, error: Exception) -> Any:
    """Return a URL by the client of fsdf's own extra, of one for which SQLAlchemy had no client.

    Raises:
        ImproperlyConfigured: the URL is none, names another client, or ours is missing, too.
    """
    if not isinstance(error, ImportError):
        raise ImproperlyConfigured(
            f"result_backend: {masked(str(dburi))!r} names no database that SQLAlchemy knows; give"
            " db+postgresql://, db+mysql://, db+sqlite:/// or one that an installed package adds"
        ) from error
    url = make_url(dburi)
    if (ours := _by_ours(url)) is not None:
        return ours
    product = url.drivername.partition("+")[0]
    told = f"result_backend: the client library of {url.drivername}:// is not installed ({error})"
    if product not in _OURS:
        raise ImproperlyConfigured(f"{told}; install it") from error
    extra = "postgresql" if product == "postgresql" else "mysql"
    raise ImproperlyConfigured(
        f'{told}; install it, or say db+{product}:// and pip install "fsdf[{extra}]"'
    ) from error


def patient(dburi: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return an engine's options by which a PostgreSQL that accepts and hangs is given up.

    Whatever else says how long to wait counts: the options, the URL, the environment.
    """
    scheme, _, rest = str(dburi).partition("://")
    given = options.get("connect_args") or {}
    told = "connect_timeout" in given or "connect_timeout=" in rest
    if scheme not in _LIBPQ or told or "PGCONNECT_TIMEOUT" in os.environ:
        return options
    return {**options, "connect_args": {"connect_timeout": CONNECT_TIMEOUT, **given}}


def installed(dburi: str) -> str:
    """Return a URL by the client of fsdf's own extra, if its own is missing; else as it is."""
    try:
        make_url(dburi).get_dialect().import_dbapi()
    except ImportError:
        ours = _by_ours(make_url(dburi))
        return dburi if ours is None else str(ours.render_as_string(hide_password=False))
    except ArgumentError:  # whoever uses it tells what is wrong with it
        return dburi
    return dburi


def _by_ours(url: URL) -> URL | None:
    product, named, _ = url.drivername.partition("+")
    if named or product not in _OURS or not _is_installed(_OURS[product]):
        return None
    return url.set(drivername=f"{product}+{_OURS[product]}")


def _is_installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
