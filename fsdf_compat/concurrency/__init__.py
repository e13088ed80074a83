"""Pools by their names: classes that say where runs are, and make the engine's pool for it."""

from __future__ import annotations

import os
from typing import Any

from .._app.naming import named

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
    """Return a pool's class by its name, or by "module:class".

    Raises:
        ImproperlyConfigured: there is none of this name.
    """
    place = ALIASES.get(cls, cls) if isinstance(cls, str) else cls
    return named("pool", cls, ALIASES) if isinstance(place, str) else place


def get_available_pool_names() -> tuple[str, ...]:
    """Return the names of all pools."""
    return tuple(ALIASES)
