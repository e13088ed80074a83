"""Proxies: what stands for an object that is looked up, or made, when it is used."""

from __future__ import annotations

import types
from typing import Any

from ._local.modules import (
    COMPAT_MODULES,
    DEFAULT_ATTRS,
    DEPRECATED_ATTRS,
    LazyModule,
    create_module,
    get_compat_module,
    get_origins,
    getappattr,
    recreate_module,
)
from ._local.proxy import PromiseProxy, Proxy, maybe_evaluate, try_import

__all__ = [
    "PromiseProxy", "Proxy", "maybe_evaluate", "try_import",
    "COMPAT_MODULES", "DEFAULT_ATTRS", "DEPRECATED_ATTRS", "LazyModule", "class_property",
    "create_module", "fun_of_method", "get_compat_module", "get_origins", "getappattr",
    "reclassmethod", "recreate_module",
]  # fmt: skip


class class_property:
    """A property of classes: `getter` and `setter` are given the class."""

    def __init__(self, getter: Any = None, setter: Any = None) -> None:
        self.__get = self._classmethod(getter)
        self.__set = self._classmethod(setter)
        shown = self.__get.__func__
        self.__doc__, self.__name__ = shown.__doc__, shown.__name__
        self.__module__ = shown.__module__

    @staticmethod
    def _classmethod(function: Any) -> Any:
        if function is None or isinstance(function, classmethod):
            return function
        return classmethod(function)

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __get__(self, obj: Any, type: Any = None) -> Any:
        return self.__get.__get__(obj, obj.__class__ if type is None else type)()

    def __set__(self, obj: Any, value: Any) -> Any:
        return self if obj is None else self.__set.__get__(obj)(value)

    def setter(self, setter: Any) -> class_property:
        """Return the property with this setter."""
        return type(self)(self.__get, setter)


def fun_of_method(method: Any) -> Any:
    """Return the function of an unbound method, which is the function itself."""
    return method


def reclassmethod(method: Any) -> Any:
    """Return a method as a class method."""
    return classmethod(fun_of_method(method))
