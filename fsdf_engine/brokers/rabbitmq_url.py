"""Where a RabbitMQ is, from a URL.

    amqp://user:password@host:5672/vhost?queue_type=classic

`amqps` is TLS; `pyamqp`, `rabbitmq` and the like are as `amqp`. Several hosts stand with commas
between them, or as several URLs with semicolons; they are tried in this order. No vhost, and `/`,
are the vhost `/`; what else is special in a name or a password is escaped, as `%2F` for a slash.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from ..errors import ConfigurationError
from ..spelling import did_you_mean, masked
from ..unpatched import unpatched
from .amqp_client import Endpoint

__all__ = ["Target", "target"]

PLAIN, SAFE = ("amqp", "pyamqp", "rabbitmq", "librabbitmq"), ("amqps", "pyamqps", "rabbitmqs")
OPTIONS = ("queue_type", "timeout", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
KINDS = ("quorum", "classic")


class Target(NamedTuple):
    """The servers, in the order in which to try them, and the type of queues that we make."""

    endpoints: tuple[Endpoint, ...]
    queue_type: str = "quorum"


def target(url: str) -> Target:
    """Read a URL.

    Raises:
        ConfigurationError: it is none, or has an option that there is not.
    """
    found: list[Endpoint] = []
    kind = "quorum"
    for part in url.split(";"):
        try:
            endpoints, options = _read(part.strip())
        except ValueError as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"{masked(url)!r} in broker_url or RABBITMQ_URL cannot be read: {error};"
                " write amqp://user:password@host:5672/vhost"
            ) from None
        found += endpoints
        kind = options.get("queue_type", kind)
    if kind not in KINDS:
        raise ConfigurationError(
            f"queue_type={kind!r} in broker_url or RABBITMQ_URL is none{did_you_mean(kind, KINDS)}"
        )
    return Target(tuple(found), kind)


def _read(url: str) -> tuple[list[Endpoint], Mapping[str, str]]:
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() not in (*PLAIN, *SAFE):
        raise ValueError("it does not begin with amqp:// or amqps://")
    rest, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise ConfigurationError(
                f"option {name!r} in broker_url or RABBITMQ_URL is unknown"
                f"{did_you_mean(name, OPTIONS)}"
            )
    place, _, path = rest.partition("/")
    credentials, at, hosts = place.rpartition("@")
    user, _, password = credentials.partition(":")
    safe = scheme.lower() in SAFE
    path = unquote(path)
    common = {
        "user": unquote(user) if at and user else "guest",
        "password": unquote(password) if at and user else "guest",
        "vhost": path if path else "/",
        "tls": _tls(options) if safe else None,
        "timeout": float(options.get("timeout", 5.0)),
    }
    return [
        Endpoint(*_place(host, 5671 if safe else 5672), **common)  # type: ignore[arg-type]
        for host in hosts.split(",")
    ], options


def _place(text: str, port: int) -> tuple[str, int]:
    host, _, rest = text.rpartition("]") if text.startswith("[") else ("", "", text)
    name, colon, number = rest.partition(":")
    host = host.lstrip("[") or unquote(name) or "localhost"
    if colon and number:
        if not number.isascii() or not number.isdigit() or not 0 < int(number) < 1 << 16:
            raise ValueError(f"{number!r} is no port")
        port = int(number)
    return host, port


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    plain: Any = unpatched("ssl")  # the socket's owner is a native thread
    try:
        context: ssl.SSLContext = plain.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_cert_reqs", "").lower() in ("none", "cert_none"):
            context.check_hostname, context.verify_mode = False, plain.CERT_NONE
        if certificate := options.get("ssl_certfile"):
            context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    except OSError as error:
        raise ValueError(f"its certificates cannot be loaded: {error}") from error
    return context
