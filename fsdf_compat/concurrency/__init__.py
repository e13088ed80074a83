"""Pools by their names: classes that say where runs are, and make the engine's pool for it."""

from __future__ import annotations

import os
from typing import Any

from kombu.utils.imports import symbol_by_name

__all__ = ("get_available_pool_names", "get_implementation")

# Under their public names, which mean these modules whatever this package is called.
ALIASES: dict[str, str | None] = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "eventlet": "celery.concurrency.eventlet:TaskPool",
    "gevent": "celery.concurrency.gevent:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
    "processes": "celery.concurrency.prefork:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
    "asyncio": "celery.concurrency.asyncio:TaskPool",
    "custom": os.environ.get("CELERY_CUSTOM_WORKER_POOL"),
}


def get_implementation(cls: Any) -> Any:
    """Return a pool's class by its name, or by "module:class"."""
    if not isinstance(cls, str):
        return cls
    place = ALIASES.get(cls, cls)
    if place and place.startswith("celery."):
        place = __name__.rpartition(".")[0] + place[len("celery") :]
    return symbol_by_name(place)


def get_available_pool_names() -> tuple[str, ...]:
    """Return the names of all pools."""
    return tuple(ALIASES)
