"""The parts of `app`: its modules are facades of these, and classes carry the facades' names."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

__all__ = ["owning", "shown_by"]
T = TypeVar("T")
_ROOT = __name__.rpartition(".")[0]


def shown_by(module: str) -> Callable[[T], T]:
    """Return a decorator for what users know by a public module: `@shown_by("app.base")`."""

    def show(thing: Any) -> Any:
        thing.__module__ = f"{_ROOT}.{module}"
        return thing

    return show


def owning(cls: T) -> T:
    """Let methods that lie elsewhere be those of the class: so it is seen who overrides one."""
    for method in vars(cls).values():
        if isinstance(method, FunctionType):
            method.__module__ = cls.__module__
    return cls
