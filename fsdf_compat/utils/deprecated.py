"""Warnings of what will go."""

from __future__ import annotations

import warnings
from collections.abc import Callable as _Callable
from functools import wraps
from typing import Any

from ..exceptions import CDeprecationWarning, CPendingDeprecationWarning
from .imports import qualname

__all__ = ["Callable", "Property", "warn"]


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that something goes with version `removal`; pending if `deprecation` names another."""
    # Programs filter these by their texts.
    category: type[Warning] = CDeprecationWarning
    text = f"{description} is deprecated and scheduled for removal in version {removal}."
    if deprecation is not None:
        category = CPendingDeprecationWarning
        text = (
            f"{description} is scheduled for deprecation in version {deprecation} and removal in"
            f" version v{removal}."
        )
    warnings.warn(category(f"{text} {alternative or ''}".rstrip()), stacklevel=stacklevel)


def Callable(
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> Any:
    """Return a decorator: each call of the function warns."""

    def decorate(fun: _Callable[..., Any]) -> _Callable[..., Any]:
        @wraps(fun)
        def call(*args: Any, **kwargs: Any) -> Any:
            warn(
                description=description or qualname(fun),
                deprecation=deprecation,
                removal=removal,
                alternative=alternative,
                stacklevel=3,
            )
            return fun(*args, **kwargs)

        return call

    return decorate


def Property(
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> Any:
    """Return a decorator of properties: each use warns."""

    def decorate(fun: _Callable[..., Any]) -> _deprecated_property:
        return _deprecated_property(
            fun,
            deprecation=deprecation,
            removal=removal,
            alternative=alternative,
            description=description or fun.__name__,
        )

    return decorate


class _deprecated_property(property):
    def __init__(
        self, fget: Any, fset: Any = None, fdel: Any = None, doc: Any = None, **told: Any
    ) -> None:
        super().__init__(fget, fset, fdel, doc)
        self.told = {"stacklevel": 3, **told}

    def __get__(self, obj: Any, type: Any = None) -> Any:
        if obj is not None:
            warn(**self.told)
        return super().__get__(obj, type)

    def __set__(self, obj: Any, value: Any) -> Any:
        if obj is None:
            return self
        if self.fset is not None:
            warn(**self.told)
        return super().__set__(obj, value)

    def __delete__(self, obj: Any) -> Any:
        if obj is None:
            return self
        if self.fdel is not None:
            warn(**self.told)
        return super().__delete__(obj)

    def setter(self, fset: Any) -> _deprecated_property:
        return type(self)(self.fget, fset, self.fdel, **self.told)

    def deleter(self, fdel: Any) -> _deprecated_property:
        return type(self)(self.fget, self.fset, fdel, **self.told)
