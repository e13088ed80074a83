"""With which client library a database is reached."""

from __future__ import annotations

import importlib
import os
from typing import Any

from sqlalchemy.engine import make_url

from fsdf_engine import masked

from ...exceptions import ImproperlyConfigured

__all__ = ("other_driver", "patient")
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
    product, named, _ = url.drivername.partition("+")
    if not named and product in _OURS and _is_installed(_OURS[product]):
        return url.set(drivername=f"{product}+{_OURS[product]}")
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


def _is_installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
