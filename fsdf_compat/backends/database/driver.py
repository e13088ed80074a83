"""With which client library a database is reached."""

from __future__ import annotations

import importlib
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from fsdf_engine import masked

from ...exceptions import ImproperlyConfigured

__all__ = ("with_driver",)
_OURS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}  # of our extras


def with_driver(dburi: Any) -> Any:
    """Return a URL whose client library is installed.

    One that names none means SQLAlchemy's usual one; where that is missing, the one that fsdf's
    own extras bring.

    Raises:
        ImproperlyConfigured: it is no URL, no such database is known, or its client is missing.
    """
    try:
        url = make_url(dburi)
        dialect = url.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ImproperlyConfigured(
            f"result_backend: {masked(str(dburi))!r} names no database that SQLAlchemy knows; give"
            " db+postgresql://, db+mysql://, db+sqlite:/// or one that an installed package adds"
        ) from error
    product, named, _ = url.drivername.partition("+")
    ours = None if named else _OURS.get(product)
    try:
        dialect.import_dbapi()
        return dburi
    except ImportError as error:
        try:
            importlib.import_module(ours or "")
        except (ImportError, ValueError):
            raise ImproperlyConfigured(_missing(url.drivername, error)) from error
    return url.set(drivername=f"{product}+{ours}")


def _missing(name: str, error: ImportError) -> str:
    product = name.partition("+")[0]
    told = f"result_backend: the client library of {name}:// is not installed ({error})"
    if product not in _OURS:
        return f"{told}; install it"
    extra = "postgresql" if product == "postgresql" else "mysql"
    return f'{told}; install it, or say db+{product}:// and pip install "fsdf[{extra}]"'
