"""Modules and objects by their names."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, reload
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from kombu.utils.imports import symbol_by_name as _symbol_by_name

__all__ = [
    "NotAPackage", "qualname", "instantiate", "symbol_by_name", "cwd_in_path", "find_module",
    "import_from_cwd", "reload_from_cwd", "module_file", "gen_task_name",
]  # fmt: skip

#: The file of the parent's `__main__` in children that were started anew (by billiard).
MP_MAIN_FILE = os.environ.get("MP_MAIN_FILE")

# What this package is imported as: "celery" under that name, "fsdf_compat" under its own.
_ROOT = __name__.rpartition(".utils")[0]


class NotAPackage(Exception):
    """A part of a dotted name is a module and no package."""


def symbol_by_name(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what "module:name" or "module.name" says; what is no text, as it is.

    `celery.X` is this package's X, whatever name it has been imported under.
    """
    if isinstance(name, str) and (name + ".").startswith(("celery.", "celery:")):
        name = _ROOT + name.removeprefix("celery")
    return _symbol_by_name(name, *args, **kwargs)


def qualname(obj: Any) -> str:
    """Return the dotted name of a class or function, or of the class of an object."""
    if not hasattr(obj, "__name__"):
        obj = type(obj) if not hasattr(obj, "__class__") else obj.__class__
    name: str = obj.__qualname__
    return name if "." in name else f"{obj.__module__}.{name}"


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class that the name says."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[str | None]:
    """Have the current folder first in `sys.path`."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""
    if not folder or folder in sys.path:
        yield None
        return
    sys.path.insert(0, folder)
    try:
        yield folder
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def find_module(
    module: str, path: Any = None, imp: Callable[[str], ModuleType] | None = None
) -> ModuleType:
    """Import a module of the current folder or the path.

    Raises: NotAPackage: a part of its name before the last is a module.
    """
    imp = imp or import_module
    with cwd_in_path():
        try:
            return imp(module)
        except ImportError:
            parts = module.split(".")
            for length in range(1, len(parts)):
                package = ".".join(parts[:length])
                try:
                    found = imp(package)
                except ImportError:
                    break
                if not hasattr(found, "__path__"):
                    raise NotAPackage(package) from None
            raise


def import_from_cwd(
    module: str, imp: Callable[..., ModuleType] | None = None, package: str | None = None
) -> ModuleType:
    """Import a module of the current folder, else of the path."""
    with cwd_in_path():
        return (imp or import_module)(module, package=package)


def reload_from_cwd(
    module: ModuleType, reloader: Callable[[ModuleType], ModuleType] | None = None
) -> ModuleType:
    """Load a module again, with the current folder in the path."""
    with cwd_in_path():
        return (reloader or reload)(module)


def module_file(module: ModuleType) -> str:
    """Return the path of a module's source."""
    name = str(module.__file__)
    return name[:-1] if name.endswith(".pyc") else name


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """Return the name of a task of this function; that of `__main__` takes the app's name."""
    module_name = module_name or "__main__"
    module = sys.modules.get(module_name)  # a shell may hold code whose module is none
    if module is not None:
        module_name = module.__name__
        if MP_MAIN_FILE and module.__file__ == MP_MAIN_FILE:
            module_name = "__main__"
    if module_name == "__main__" and app.main:
        module_name = app.main
    return f"{module_name}.{name}" if module_name else name


@cache
def load_extension_class_names(namespace: str) -> tuple[tuple[str, str], ...]:
    """Return the (name, "module:class") of all entry points of a group. Read once a process."""
    return tuple((point.name, point.value) for point in entry_points(group=namespace))


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:
    """Yield the (name, class) of all entry points of a group; warn of what cannot be imported."""
    for name, path in load_extension_class_names(namespace):
        try:
            cls = symbol_by_name(path)
        except (ImportError, SyntaxError) as error:
            warnings.warn(f"cannot load the extension {path!r} of {namespace}: {error!r}",
                          stacklevel=2)  # fmt: skip
        else:
            yield name, cls
