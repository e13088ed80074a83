"""How the Redis backend connects: from the settings, and from its URL."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from ssl import CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED
from typing import Any
from urllib.parse import unquote

from kombu.utils import symbol_by_name
from kombu.utils.url import _parse_url

from .._upward import LateModule
from ..utils.functional import dictfilter

__all__ = ["check_ssl", "driver", "from_settings", "from_url", "more_errors"]
logger = logging.getLogger("celery.backends.redis")
_public = LateModule("backends.redis")
SSL_PARAMS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
PATIENCE = 5.0  # seconds for an answer where the settings don't say: as the engine's connections
_CERTS: Mapping[str, Any] = {
    "CERT_REQUIRED": CERT_REQUIRED, "CERT_OPTIONAL": CERT_OPTIONAL, "CERT_NONE": CERT_NONE,
    "required": CERT_REQUIRED, "optional": CERT_OPTIONAL, "none": CERT_NONE,
}  # fmt: skip


def from_settings(conf: Any, max_connections: Any, ssl_class: Any) -> dict[str, Any]:
    """Return the parameters of connections that the settings give."""
    get = conf.get
    is_set = getattr(conf, "value_set_for", conf.__contains__)  # or any mapping
    timeout = get("redis_socket_timeout") if is_set("redis_socket_timeout") else PATIENCE
    connect_timeout = get("redis_socket_connect_timeout") or PATIENCE
    params = {
        "host": get("redis_host") or "localhost",
        "port": get("redis_port") or 6379,
        "db": get("redis_db") or 0,
        "password": get("redis_password"),
        "max_connections": max_connections,
        "socket_timeout": timeout and float(timeout),
        "retry_on_timeout": get("redis_retry_on_timeout") or False,
        "socket_connect_timeout": connect_timeout and float(connect_timeout),
        "client_name": get("redis_client_name"),
    }
    if username := get("redis_username"):
        params["username"] = username
    if provider := get("redis_backend_credential_provider"):
        _provide(params, provider)
    if interval := get("redis_backend_health_check_interval"):
        params["health_check_interval"] = interval
    if alive := get("redis_socket_keepalive"):
        params["socket_keepalive"] = alive
    if ssl := get("redis_backend_use_ssl"):
        params.update(ssl)
        params["connection_class"] = ssl_class
    return params


def _provide(params: dict[str, Any], provider: Any) -> None:
    """Let an object, or the class of a name, give user and password."""
    if isinstance(provider, str):
        provider = symbol_by_name(provider)()
    if not isinstance(provider, _public.CredentialProvider):
        raise ValueError(
            "Credential provider is not an instance of a redis.CredentialProvider or a subclass"
        )
    params["credential_provider"] = provider
    params.pop("username", None)
    params.pop("password", None)


def from_url(url: str, defaults: dict[str, Any], client: Any) -> dict[str, Any]:
    """Return the parameters of connections to a URL. `client` is redis-py, or stands for it."""
    scheme, host, port, username, password, path, given_query = _parse_url(url)
    query = dict(given_query)
    given = {"host": host, "port": port, "username": username, "password": password,
             "db": query.pop("virtual_host", None)}  # fmt: skip
    params = {**defaults, **dictfilter(given)}
    if scheme == "socket":
        params["connection_class"] = client.UnixDomainSocketConnection
        params["path"] = "/" + path
        for name in ("host", "port", "socket_connect_timeout"):
            params.pop(name, None)
    else:
        params["db"] = path
    if scheme == "redis" and any(name in query for name in SSL_PARAMS):
        raise ValueError(_public.E_REDIS_SSL_PARAMS_AND_SCHEME_MISMATCH)
    if scheme == "rediss":
        params["connection_class"] = _public.redis.SSLConnection
        for name in SSL_PARAMS:
            if value := query.pop(name, None):
                params[name] = unquote(value)
    db = params.get("db") or 0
    params["db"] = int(db.strip("/") if isinstance(db, str) else db)
    if provider := query.pop("credential_provider", None):
        _provide(params, provider)
    parsers = _public.redis.connection.URL_QUERY_ARGUMENT_PARSERS
    params.update((k, parsers[k](v) if k in parsers else v) for k, v in query.items())
    return params


def check_ssl(params: dict[str, Any]) -> None:
    """Let the parameters name in the ssl module's way how the server is checked.

    Raises:
        ValueError: they don't say, or say something else.
    """
    kind = params.get("connection_class")
    if kind is None or not issubclass(kind, _public.redis.SSLConnection):
        return
    wanted = params.get("ssl_cert_reqs", "MISSING")
    wanted = _CERTS.get(wanted, wanted) if isinstance(wanted, str) else wanted
    if wanted not in _CERTS.values():
        raise ValueError(_public.E_REDIS_SSL_CERT_REQS_MISSING_INVALID)
    if wanted == CERT_OPTIONAL:
        logger.warning(_public.W_REDIS_SSL_CERT_OPTIONAL)
    elif wanted == CERT_NONE:
        logger.warning(_public.W_REDIS_SSL_CERT_NONE)
    params["ssl_cert_reqs"] = wanted


def driver(version: str) -> dict[str, Any]:
    """Return what tells the server who connects."""
    try:
        from redis import DriverInfo

        return {"driver_info": DriverInfo().add_upstream_driver("celery", version)}
    except (ImportError, AttributeError):  # an older redis-py
        import redis

        known = getattr(redis, "__version__", "unknown")
        return {"lib_name": f"redis-py(celery_v{version})", "lib_version": known}


def more_errors(given: Any) -> tuple[type[Exception], ...]:
    """Return the classes that `additional_connection_errors` names; what is none is told."""
    return tuple(_classes(given))


def _classes(given: Any) -> Iterator[type[Exception]]:
    if given is None:
        return
    if isinstance(given, (str, type)) or not hasattr(given, "__iter__"):
        given = (given,)
    for each in given:
        try:
            found = symbol_by_name(each) if isinstance(each, str) else each
        except (ImportError, AttributeError) as error:
            logger.warning(
                "Ignoring unresolvable additional_connection_errors entry %r: %r", each, error
            )
            continue
        if isinstance(found, type) and issubclass(found, Exception):
            yield found
        else:
            logger.warning(
                "Ignoring invalid additional_connection_errors entry %r (resolved: %r): expected an"
                " exception class or dotted path to one.",
                each, found,
            )  # fmt: skip
