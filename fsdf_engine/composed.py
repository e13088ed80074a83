"""URLs that old configurations give in parts: which these are, and how each is made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

__all__ = ["COMPOSED"]


def _where(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _redis(host: object, port: object, password: object, database: object) -> str:
    user = f":{quote(str(password), safe='')}@" if password else ""
    return f"redis://{user}{_where(str(host), port)}/{database}"


def _rabbitmq(host: object, port: object, user: object, password: object, vhost: object) -> str:
    names = [quote(str(name), safe="") for name in (user, password, vhost)]
    return f"amqp://{names[0]}:{names[1]}@{_where(str(host), port)}/{names[2]}"


# Key of a URL -> the keys of its parts, and what makes it of their values.
COMPOSED: Mapping[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "REDIS_URL": (("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"), _redis),
    "RABBITMQ_URL": (
        (
            "RABBITMQ_HOST",
            "RABBITMQ_PORT",
            "RABBITMQ_USER",
            "RABBITMQ_PASS",
            "RABBITMQ_VIRTUAL_HOST",
        ),
        _rabbitmq,
    ),
}
