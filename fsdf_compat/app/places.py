"""Celery's URLs as options of the engine. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from fsdf_engine import Options, masked

from ..exceptions import ImproperlyConfigured, NotYetSupported

__all__ = ["broker_options", "result_options"]
_REDIS = {"redis", "rediss", "unix", "redis+socket"}


def broker_options(url: object) -> Options:
    """Return where messages wait; without a URL in the engine's SQLite file.

    Raises:
        NotYetSupported: this version has no such transport.
    """
    text, scheme = _split(url, "broker_url")
    if not text:
        return {"broker_kind": "sqlite"}
    if scheme in _REDIS:
        return {"broker_kind": "redis_ack", "broker_url": _redis(text, scheme)}
    if scheme in ("sqlite", "sqla+sqlite"):
        return {"broker_kind": "sqlite", "broker_url": text.partition("+")[2] or text}
    if scheme == "memory":
        return {"broker_kind": "memory"}
    raise NotYetSupported(
        f"broker_url {masked(f'{scheme}://')} is not in this version; there are redis://, rediss://,"
        " redis+socket://, sqlite:/// and memory://"
    )


def result_options(url: object) -> Options | None:
    """Return where results are kept; None: nowhere.

    Raises:
        NotYetSupported: this version has no such backend.
    """
    text, scheme = _split(url, "result_backend")
    if not text or text == "disabled":
        return None
    if scheme in _REDIS:
        return {"result_store": "redis", "result_url": _redis(text, scheme)}
    if scheme in ("sqlite", "db+sqlite"):
        return {"result_store": "sqlite", "result_url": text.partition("+")[2] or text}
    if scheme in ("memory", "cache+memory"):
        return {"result_store": "memory"}
    raise NotYetSupported(
        f"result_backend {masked(f'{scheme}://')} is not in this version; there are redis://, rediss://,"
        " redis+socket://, db+sqlite:/// and cache+memory://"
    )


def _split(url: object, key: str) -> tuple[str, str]:
    if url is None:
        return "", ""
    if not isinstance(url, str):
        kind = type(url).__name__  # the URLs themselves may hold passwords
        raise NotYetSupported(f"{key} is a {kind}: give one URL as text; several are not supported")
    if ";" in url:
        raise NotYetSupported(f"{key}: several URLs are not supported yet; give one")
    scheme = url.partition(":")[0].lower()
    if url and url != "disabled" and ":" not in url:
        scheme, url = url.lower(), f"{url}://"
    return url, scheme


def _redis(url: str, scheme: str) -> str:
    if scheme == "redis+socket":
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        number = (query.get("virtual_host") or query.get("db") or ["0"])[0].strip("/")
        if not number.isdecimal():
            raise ImproperlyConfigured(f"virtual_host={number!r} in a redis+socket URL: a number")
        user = f"{parts.netloc}" if parts.netloc else ""
        return f"unix://{user}{parts.path}?db={number}"
    if not (parts := urlsplit(url)).netloc:
        url = parts._replace(netloc="127.0.0.1:6379", path=parts.path or "/0").geturl()
    # Celery has the names of the ssl module, redis-py its own.
    return re.sub(r"(?<=[?&]ssl_cert_reqs=)CERT_\w+", lambda m: m[0][5:].lower(), url)
