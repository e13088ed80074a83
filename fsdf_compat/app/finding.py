"""Which app `-A` means."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

from ..exceptions import ImproperlyConfigured
from .base import Celery
from .settings import imported

__all__ = ["find_app"]


def find_app(place: str) -> Celery:
    """Import what `place` names and return its app.

    `proj:name` is that attribute. `proj` is a module with `app`, `celery` or any other Celery app,
    or a package with a module `celery` that has one.

    Raises:
        ImproperlyConfigured: there is none.
    """
    if not place:
        raise ImproperlyConfigured("which app? give -A module, or -A module:attribute")
    found: Any = imported(place)
    if isinstance(found, ModuleType):
        found = _in_module(found)
    if not isinstance(found, Celery):
        raise ImproperlyConfigured(f"{place!r} has no Celery app; give module:attribute")
    return found


def _in_module(module: ModuleType) -> Celery | None:
    for name in ("app", "celery"):
        if isinstance(found := getattr(module, name, None), Celery):
            return found
    if hasattr(module, "__path__"):
        with suppress(ImproperlyConfigured):
            return _in_module(imported(f"{module.__name__}.celery"))
    return next((v for v in vars(module).values() if isinstance(v, Celery)), None)
