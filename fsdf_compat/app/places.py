"""Celery's URLs as options of the engine. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from fsdf_engine import Options, masked

from ..exceptions import ImproperlyConfigured, NotYetSupported

__all__ = ["broker_options", "rank", "result_options"]
_REDIS = ("redis", "rediss", "unix", "redis+socket")
_BROKERS = {**dict.fromkeys(_REDIS, "redis_ack"), "sqlite": "sqlite", "sqla+sqlite": "sqlite",
            "memory": "memory"}  # fmt: skip
_STORES = {**dict.fromkeys(_REDIS, "redis"), "sqlite": "sqlite", "db+sqlite": "sqlite",
           "memory": "memory", "cache+memory": "memory"}  # fmt: skip


def broker_options(url: object) -> Options:
    """Return where messages wait; without a URL in the engine's SQLite file.

    Raises:
        NotYetSupported: this version has no such transport.
    """
    kind, place = _place(url, "broker_url", _BROKERS)
    options: Options = {"broker_kind": kind or "sqlite"}
    if place:
        options["broker_url"] = place
    return options


def rank(url: object, priority: int) -> int:
    """Return the engine's priority for one of Celery's: over Redis 0 is the first of four steps."""
    if _place(url, "broker_url", _BROKERS)[0] != "redis_ack":
        return priority
    return -3 * (min(9, max(0, priority)) // 3)


def result_options(url: object) -> Options | None:
    """Return where results are kept; None: nowhere.

    Raises:
        NotYetSupported: this version has no such backend.
    """
    kind, place = _place("" if url == "disabled" else url, "result_backend", _STORES)
    if not kind:
        return None
    return {"result_store": kind, "result_url": place} if place else {"result_store": kind}


def _place(url: object, key: str, kinds: Mapping[str, str]) -> tuple[str, str]:
    """Return the engine's kind and URL for one of Celery's; both are empty where there is none."""
    if not url:
        return "", ""
    if not isinstance(url, str):
        kind = type(url).__name__  # the URLs themselves may hold passwords
        raise NotYetSupported(f"{key} is a {kind}: give one URL as text; several are not supported")
    if ";" in url:
        raise NotYetSupported(f"{key}: several URLs are not supported yet; give one")
    url = url if ":" in url else f"{url.lower()}://"
    scheme = url.partition(":")[0].lower()
    if scheme not in kinds:
        raise NotYetSupported(f"{key} {masked(f'{scheme}://')} is not in this version; there are"
                              f" {', '.join(kinds)}")  # fmt: skip
    if scheme in _REDIS:
        return kinds[scheme], _redis(url, scheme)
    return kinds[scheme], url.partition("+")[2] or url if kinds[scheme] == "sqlite" else ""


def _redis(url: str, scheme: str) -> str:
    if scheme == "redis+socket":
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        number = (query.get("virtual_host") or query.get("db") or ["0"])[0].strip("/")
        if not number.isdecimal():
            raise ImproperlyConfigured(f"virtual_host={number!r} in a redis+socket URL: a number")
        return f"unix://{parts.netloc}{parts.path}?db={number}"
    if not (parts := urlsplit(url)).netloc:
        url = parts._replace(netloc="127.0.0.1:6379", path=parts.path or "/0").geturl()
    # Celery has the names of the ssl module, redis-py its own.
    return re.sub(r"(?<=[?&]ssl_cert_reqs=)CERT_\w+", lambda m: m[0][5:].lower(), url)
