"""Which app `-A` means."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from ..exceptions import ImproperlyConfigured
from .base import Celery

__all__ = ["find_app"]


def find_app(place: str) -> Celery:
    """Import what `place` names and return its app.

    `proj:name` is that attribute. `proj` is a module with `app`, `celery` or any other Celery app,
    or a package with a module `celery` that has one.

    Raises:
        ImproperlyConfigured: there is none.
    """
    module, _, attribute = place.partition(":")
    if attribute:
        return _checked(getattr(_import(module), attribute, None), place)
    try:
        found: Any = _import(module)
    except ImproperlyConfigured:
        head, _, tail = module.rpartition(".")  # "proj.celery_app" may be an attribute, too
        if not head:
            raise
        found = getattr(_import(head), tail, None)
    if isinstance(found, ModuleType):
        found = _in_module(found)
    return _checked(found, place)


def _in_module(module: ModuleType) -> Celery | None:
    for name in ("app", "celery"):
        if isinstance(found := getattr(module, name, None), Celery):
            return found
    if hasattr(module, "__path__"):
        try:
            return _in_module(_import(f"{module.__name__}.celery"))
        except ImproperlyConfigured:
            pass
    return next((v for v in vars(module).values() if isinstance(v, Celery)), None)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ImproperlyConfigured(f"there is no module {name!r}; is the folder right?") from None


def _checked(found: Any, place: str) -> Celery:
    if isinstance(found, Celery):
        return found
    raise ImproperlyConfigured(f"{place!r} has no Celery app; give module:attribute")
