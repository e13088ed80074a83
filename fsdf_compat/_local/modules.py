"""Modules that are made at run time: lazy ones, and those that once were."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from .._upward import upward
from .proxy import Proxy

__all__ = [
    "COMPAT_MODULES", "DEFAULT_ATTRS", "DEPRECATED_ATTRS", "LazyModule", "create_module",
    "get_compat_module", "get_origins", "getappattr", "recreate_module",
]  # fmt: skip


def getappattr(path: str) -> Any:
    """Return what the dotted path says of the current app."""
    return operator.attrgetter(path)(upward("_state").current_app)


#: Modules that once were, by name: {attribute: dotted path from the current app}.
COMPAT_MODULES: dict[str, dict[str, dict[str, str]]] = {
    "celery": {
        "execute": {"send_task": "send_task"},
        "log": {
            "get_default_logger": "log.get_default_logger",
            "setup_logging_subsystem": "log.setup_logging_subsystem",
            "redirect_stdouts_to_logger": "log.redirect_stdouts_to_logger",
        },
        "messaging": {
            "TaskConsumer": "amqp.TaskConsumer",
            "establish_connection": "connection",
            "get_consumer_set": "amqp.TaskConsumer",
        },
        "registry": {"tasks": "tasks"},
    },
}

DEPRECATED_ATTRS = {*COMPAT_MODULES["celery"], "subtask"}
DEFAULT_ATTRS = {"__file__", "__path__", "__doc__", "__all__"}


class LazyModule(ModuleType):
    """A module whose names are imported when they are used."""

    _compat_modules: Any = ()
    _all_by_module: Mapping[str, Any] = {}
    _direct: Mapping[str, str] = {}
    _object_origins: Mapping[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._object_origins:
            origin = self._object_origins[name]
            module = import_module(origin)
            for item in self._all_by_module[origin]:
                setattr(self, item, getattr(module, item))
            return self.__dict__[name]
        if name in self._direct:
            setattr(self, name, import_module(self._direct[name]))
            return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [name for name in {*self.__all__, *DEFAULT_ATTRS} if name not in DEPRECATED_ATTRS]

    def __reduce__(self) -> Any:
        return import_module, (self.__name__,)


def create_module(
    name: str,
    attrs: Mapping[str, Any],
    cls_attrs: dict[str, Any] | None = None,
    pkg: ModuleType | None = None,
    base: type[ModuleType] = LazyModule,
    prepare_attr: Callable[[Any], Any] | None = None,
) -> Any:
    """Make a module with these attributes and put it into `sys.modules`."""
    package, _, short = name.rpartition(".")
    cls = type(short, (base,), {**(cls_attrs or {}), "__module__": package})
    full = f"{pkg.__name__}.{name}" if pkg else name
    module = sys.modules[full] = cls(name)
    prepare = prepare_attr or (lambda value: value)
    module.__dict__.update({key: prepare(value) for key, value in attrs.items()})
    return module


def recreate_module(
    name: str,
    compat_modules: Any = None,
    by_module: Mapping[str, Any] | None = None,
    direct: Mapping[str, str] | None = None,
    base: type[ModuleType] = LazyModule,
    **attrs: Any,
) -> tuple[ModuleType, Any]:
    """Replace a module by a lazy one; return both, the old one first."""
    compat_modules = compat_modules or COMPAT_MODULES.get(name, ())
    by_module, direct = by_module or {}, direct or {}
    origins = get_origins(by_module)
    cls_attrs = {
        "_compat_modules": compat_modules,
        "_all_by_module": by_module,
        "_direct": direct,
        "_object_origins": origins,
        "__all__": tuple({*compat_modules, *origins, *direct, *attrs}),
    }
    old = sys.modules[name]
    new = create_module(name, attrs, cls_attrs=cls_attrs, base=base)
    new.__dict__.update({mod: get_compat_module(new, mod) for mod in compat_modules})
    new.__spec__ = old.__spec__
    return old, new


def get_compat_module(pkg: ModuleType, name: str) -> Any:
    """Make the module of an old name, whose attributes are the current app's."""
    attrs: Any = COMPAT_MODULES.get(pkg.__name__, COMPAT_MODULES["celery"])[name]
    if isinstance(attrs, str):
        module = sys.modules[f"{pkg.__name__}.{name}"] = import_module(attrs)
        return module
    made = create_module(
        name,
        attrs,
        pkg=pkg,
        prepare_attr=lambda attr: Proxy(getappattr, (attr,)) if isinstance(attr, str) else attr,
    )
    made.__all__ = list(attrs)
    return made


def get_origins(defs: Mapping[str, Any]) -> dict[str, str]:
    """Return {attribute: module} of {module: attributes}."""
    return {attr: module for module, attrs in defs.items() for attr in attrs}
