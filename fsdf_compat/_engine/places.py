"""Celery's URLs as options of the engine. Pure.

One URL is one place. Where Celery would go over to the next of several, the engine has servers
that do so by themselves: those of RabbitMQ, and Redis Sentinel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fsdf_engine import Options, did_you_mean, masked

from ..exceptions import ImproperlyConfigured

__all__ = ["AMQP", "BROKERS", "broker_options", "rank", "result_options", "unrank", "whole"]
_REDIS = ("redis", "rediss", "unix", "redis+socket", "sentinel")
AMQP = ("amqp", "pyamqp", "amqps", "pyamqps")
BROKERS: Mapping[str, str] = {
    **dict.fromkeys(_REDIS, "redis_ack"), **dict.fromkeys(AMQP, "rabbitmq_amqpstorm"),
    "sqlite": "sqlite", "sqla+sqlite": "sqlite", "memory": "memory",
    **dict.fromkeys(("sqla+postgresql", "sqla+postgres"), "sqlalchemy"),
    **dict.fromkeys(("sqla+mysql", "sqla+mariadb"), "sqlalchemy"),
}  # fmt: skip
# A scheme, what stands behind it, the rest.
_TYPED = re.compile(r"([a-z][\w+.-]*)?(:?/*)(.*)", re.IGNORECASE | re.DOTALL)
_STORES = {
    **dict.fromkeys(_REDIS, "redis"), "sqlite": "sqlite", "db+sqlite": "sqlite",
    "memory": "memory", "cache+memory": "memory",
}  # fmt: skip


def broker_options(url: object, options: Mapping[str, Any] | None = None) -> Options:
    """Return where messages wait; `options` are `broker_transport_options`.

    Raises:
        ImproperlyConfigured: there is no such transport; it names those that there are.
    """
    kind, place = _place(url, "broker_url", BROKERS, options or {})
    found: Options = {"broker_kind": kind or "sqlite"}
    if place:
        found["broker_url"] = place
    return found


def result_options(url: object, options: Mapping[str, Any] | None = None) -> Options | None:
    """Return where results are kept; None: nowhere, or not by the engine."""
    if not url or url == "disabled":
        return None
    try:
        kind, place = _place(url, "result_backend", _STORES, options or {})
    except ImproperlyConfigured:
        return None
    return {"result_store": kind, "result_url": place} if place else {"result_store": kind}


def whole(priority: Any) -> int:
    """Return a priority that may be a text, as kombu takes it; 0 of what is no number."""
    try:
        return int(priority)
    except (TypeError, ValueError):
        return 0


def rank(url: object, priority: Any) -> int:
    """Return the engine's priority for one of Celery's: over Redis 0 is the first of four steps."""
    priority = whole(priority)
    if not _is_redis(url):
        return priority
    return -3 * (min(9, max(0, priority)) // 3)


def unrank(url: object, priority: int) -> int:
    """Return Celery's priority for one of the engine's."""
    return -priority if _is_redis(url) and priority < 0 else priority


def _is_redis(url: object) -> bool:
    return _scheme(_one(url, "broker_url") if url else "") in _REDIS


def _scheme(url: str) -> str:
    """Return what the URL begins with; of databases without the driver, which the engine has."""
    scheme = url.partition(":")[0].lower()
    kept = 2 if scheme.startswith(("sqla+", "db+")) else None
    return "+".join(scheme.split("+")[:kept])


def _one(url: object, key: str) -> str:
    """Return the one URL that a setting gives, as text, or alone in a list."""
    if isinstance(url, (list, tuple)):
        url = ";".join(map(str, url))
    if not isinstance(url, str):
        kind = type(url).__name__  # its text may hold passwords
        raise ImproperlyConfigured(f"{key} is of type {kind}: give a URL as text")
    urls = [each.strip() for each in url.split(";") if each.strip()]
    if len(urls) == 1 or (urls and all(_scheme(each) in AMQP for each in urls)):  # of one cluster
        return ";".join(urls)
    if urls and all(_scheme(each) == "sentinel" for each in urls):  # of one group
        first, *others = urls
        more = [urlsplit(each).netloc.rpartition("@")[2] for each in others]
        parts = urlsplit(first)
        return parts._replace(netloc=",".join([parts.netloc, *more])).geturl()
    raise ImproperlyConfigured(
        f"{key} has {len(urls)} URLs: a message is in one place, so there is no going over to"
        " another one; give one URL, the servers of a RabbitMQ (amqp://a;amqp://b), or the"
        " sentinels of a Redis group (sentinel://a;sentinel://b)"
    )


def _place(
    url: object, key: str, kinds: Mapping[str, str], options: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the engine's kind and URL for one of Celery's; both are empty where there is none."""
    if not url:
        return "", ""
    text = _spelled(_one(url, key), key, kinds)
    scheme = _scheme(text)
    if scheme == "sentinel":
        return kinds[scheme], _sentinel(text, key, options)
    if scheme in _REDIS:
        return kinds[scheme], _redis(text, scheme)
    if scheme in AMQP:
        return kinds[scheme], text
    if kinds[scheme] in ("sqlite", "sqlalchemy"):
        return kinds[scheme], text.partition("+")[2] or text
    return kinds[scheme], ""


def _spelled(text: str, key: str, kinds: Mapping[str, str]) -> str:
    """Return a URL whose scheme there is, which may stand alone.

    Raises:
        ImproperlyConfigured: it is none; it is shown as it was typed, without its password.
    """
    scheme, mark, rest = _TYPED.fullmatch(text).groups("")  # type: ignore[union-attr]
    known, behind = _scheme(scheme) in kinds, mark.startswith("://")
    if known and (behind or not (rest or mark)):
        return text if mark else f"{scheme.lower()}://"
    hint = did_you_mean(scheme, kinds)
    if not (known or behind):  # any part of it may be a password
        scheme, mark, rest = "", "", text
    shown = masked(f"{scheme or key}://{rest}").partition("://")[2]
    if known:
        why = f"there is no :// behind {scheme}; write {scheme}://{shown}"
    else:
        why = f"there is no {scheme}://" if scheme else "it begins with no scheme, such as redis://"
        why += hint
    raise ImproperlyConfigured(f"{key}={scheme + mark + shown!r}: {why}")


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


def _sentinel(url: str, key: str, options: Mapping[str, Any]) -> str:
    """Return the URL of the master that sentinels know by `master_name`."""
    if not (name := options.get("master_name")):
        name_of = "broker_transport_options" if key == "broker_url" else (
            "result_backend_transport_options"
        )  # fmt: skip
        raise ImproperlyConfigured(f"{key} is sentinel://: give {name_of}['master_name']")
    parts = urlsplit(url)
    secret = (options.get("sentinel_kwargs") or {}).get("password")
    query = f"sentinel_password={secret}" if secret else parts.query
    path = f"/{name}/{parts.path.strip('/') or 0}"
    return parts._replace(scheme="redis+sentinel", path=path, query=query).geturl()
