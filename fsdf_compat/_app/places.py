"""Where an app's messages wait, with what its settings say of the connection. Opens nothing."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from .._engine.errors import translating
from .._engine.places import broker_options
from ..exceptions import ImproperlyConfigured

__all__ = ["TIMEOUTS", "broker_of", "check_places", "engine_options", "engine_place"]

TIMEOUTS = ("socket_connect_timeout", "socket_timeout")
_NEEDED = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}
_SSL = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")


def engine_place(conf: Any, url: Any = None) -> Any:
    """Return the engine's options of the app's broker, or of another one of its settings.

    What the URL itself says of timeouts and certificates is stronger.

    Raises:
        ImproperlyConfigured: there is no such broker, or what is said of it is none.
    """
    if not isinstance(conf.broker_use_ssl, (dict, int, type(None))):
        kind = type(conf.broker_use_ssl).__name__
        raise ImproperlyConfigured(f"broker_use_ssl is of type {kind}: give True, False or a dict")
    options = conf.broker_transport_options or {}
    found = broker_options(url or conf.broker_url, options)
    place = found.get("broker_url", "")
    if found["broker_kind"] == "rabbitmq_amqpstorm":
        found["broker_url"] = ";".join(_amqp(conf, each) for each in place.split(";"))
        return found
    parts = urlsplit(place)
    if found["broker_kind"] != "redis_ack" or parts.scheme not in ("redis", "rediss"):
        return found
    if conf.broker_use_ssl:
        parts = parts._replace(scheme="rediss")
    known = dict(parse_qsl(parts.query))
    more = [f"{k}={quote(v, safe='/')}" for k, v in _asked(conf, options) if k not in known]
    query = "&".join(filter(None, (parts.query, *more)))
    found["broker_url"] = parts._replace(query=query).geturl()
    return found


def _amqp(conf: Any, place: str) -> str:
    """Return a URL of RabbitMQ with what the settings say; what it says itself is stronger.

    Queues that are not there are made as Celery makes them, classic ones; with all priorities.
    """
    scheme, _, rest = place.partition("://")
    if conf.broker_use_ssl and not scheme.endswith("s"):
        scheme += "s"
    known = dict(parse_qsl(rest.partition("?")[2]))
    more = {"queue_type": "quorum" if conf.task_default_queue_type == "quorum" else "classic"}
    if seconds := conf.broker_connection_timeout:
        more["timeout"] = str(float(seconds))
    if isinstance(conf.broker_use_ssl, dict):
        for name in ("ca_certs", "certfile", "keyfile", "cert_reqs"):
            if (value := conf.broker_use_ssl.get(name)) is not None:
                more[f"ssl_{name}"] = _text(f"ssl_{name}", value)
    query = "&".join(f"{k}={quote(v, safe='/')}" for k, v in more.items() if k not in known)
    return f"{scheme}://{rest or 'localhost'}{'&' if '?' in rest else '?'}{query}"


def broker_of(app: Any, url: Any = None) -> Any:
    """Return the engine's broker of an app, or of another one of Celery's URLs.

    Raises:
        ImproperlyConfigured: there is none, its client is not installed, or the URL is wrong.
    """
    chosen = engine_place(app.conf, url)
    with translating():
        return app.engine.broker(chosen["broker_kind"], chosen.get("broker_url"))


def check_places(app: Any) -> None:
    """Find out whether there are such a broker and such a result backend. Opens nothing.

    Raises:
        ImproperlyConfigured: one is not there.
    """
    broker_of(app)
    if getattr(app.backend, "native", False):
        app.backend.replies()


def engine_options(self: Any, results: bool = False) -> Any:
    """Return the engine's options of the app's broker, and of where its results lie."""
    options = engine_place(self.conf)
    if results and getattr(self.backend, "native", False):
        options.update(self.backend.engine_options())
    return options


def _asked(conf: Any, options: Any) -> Iterator[tuple[str, str]]:
    """Yield what the settings say, as options of a Redis URL."""
    usual = dict.fromkeys(TIMEOUTS, conf.broker_connection_timeout)
    for name in TIMEOUTS:
        if seconds := options.get(name) or usual.get(name):
            yield name, str(float(seconds))
    if isinstance(conf.broker_use_ssl, dict):
        for name in _SSL:
            if (value := conf.broker_use_ssl.get(name)) is not None:
                yield name, _text(name, value)


def _text(name: str, value: Any) -> str:
    if name != "ssl_cert_reqs":
        return str(value)
    text: str = _NEEDED[value] if value in _NEEDED else str(value)
    return text.rpartition("CERT_")[2].lower()
