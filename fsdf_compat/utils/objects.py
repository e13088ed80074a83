"""Functions and classes about attributes."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
from functools import reduce
from operator import getitem
from typing import Any

__all__ = ["Bunch", "FallbackContext", "getitem_property", "mro_lookup"]


class Bunch:
    """An object with the attributes that it is given."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type,
    attr: str,
    stop: Collection[type] | None = None,
    monkey_patched: Collection[str] | None = None,
) -> type | None:
    """Return the first class in the MRO that defines `attr`.

    The search ends at the first class in `stop`, which counts only if its attribute was put there
    by a module that is not in `monkey_patched`.
    """
    for node in cls.mro():
        if node in (stop or ()):
            origin = getattr(node.__dict__.get(attr), "__module__", None)
            return node if origin is not None and origin not in (monkey_patched or ()) else None
        if attr in node.__dict__:
            return node
    return None


class FallbackContext:
    """A context that gives `provided`, and else enters `fallback(...)`, which it leaves, too."""

    def __init__(
        self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any
    ) -> None:
        self.provided, self.fallback = provided, fallback
        self.fb_args, self.fb_kwargs = fb_args, fb_kwargs
        self._context: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        context = self.fallback(*self.fb_args, **self.fb_kwargs)
        value = context.__enter__()
        self._context = context
        return value

    def __exit__(self, *exc_info: Any) -> Any:
        return None if self._context is None else self._context.__exit__(*exc_info)

    __class_getitem__: Any = classmethod(types.GenericAlias)


class getitem_property:
    """An attribute that is an item, `"key"` or `"path.to.key"`, of its object."""

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        *self.path, self.key = keypath.split(".")
        self.__doc__ = doc

    def _path(self, obj: Any) -> Any:
        return reduce(getitem, self.path, obj)

    def __get__(self, obj: Any, type: Any = None) -> Any:
        if obj is None:
            return type
        return (self._path(obj) if self.path else obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._path(obj)[self.key] = value
