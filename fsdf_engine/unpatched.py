"""Modules as they are without monkey-patching: for clients that block, owned by native threads.

A client library that was imported after `monkey.patch_all()` has sockets and locks of greenlets.
Used by a native thread it waits in a hub that this thread got by the way, and its second call can
hang for good. So a copy of it is made, whose imports lead to copies of what the patching changes;
nothing of that is seen by anybody else, whose own imports stay as they are.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from . import green

__all__ = ["unpatched"]

_PREFIX = "fsdf_unpatched."
# What patching changes, and what is made of it. Those written in C are copied, the others executed
# again: their functions look up the module's names, which are the patched ones.
_IN_C = ("_thread", "select", "time")
_STANDARD = ("queue", "selectors", "socket", "ssl", "threading")
_loading = green.native_lock()  # between native threads: a module is seen when it is whole


def _after_fork() -> None:
    global _loading
    _loading = green.native_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def unpatched(name: str, *along: str) -> ModuleType:
    """Return the module `name` of a client library as it is where nothing is patched.

    Where nothing is patched that is the module itself. `along` names other packages at the top
    that it stands on and that wait or lock, too. Its logger is named as the module that is
    returned. Asks a native thread, so keep what it returns; blocks while it imports. A package that
    is half in C and knows its Python half by name (psycopg) cannot be copied.

    Raises:
        ImportError: it is not installed.
    """
    if not green.active_hub():
        return importlib.import_module(name)
    copies = _Copies({name.partition(".")[0], *along})
    errors: list[BaseException] = []

    def load() -> None:
        try:
            with _loading:
                copies.load(name)
        except BaseException as error:
            errors.append(error)

    # `threading` takes who executes it for the main thread, and watches its end.
    green.native_thread(load, "fsdf-import").join()
    if errors:
        raise errors.pop()
    return sys.modules[_PREFIX + name]


class _Copies:
    """Imports copies of some packages and of the standard modules that are patched."""

    def __init__(self, packages: set[str]) -> None:
        self._packages = packages | {*_STANDARD, *_IN_C}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> ModuleType:
        """Return the copy of a module; those above it are loaded before."""
        key = _PREFIX + name
        if key in sys.modules:
            return sys.modules[key]
        above, _, last = name.rpartition(".")
        parent = self.load(above) if above else None
        if key in sys.modules:  # the parent has imported it
            return sys.modules[key]
        module = self._copied(name) if name in _IN_C else self._executed(name, parent)
        if parent is not None:
            setattr(parent, last, module)
        return module

    def _copied(self, name: str) -> ModuleType:
        module = sys.modules[_PREFIX + name] = ModuleType(_PREFIX + name)
        vars(module).update(_originals(name))
        return module

    def _executed(self, name: str, parent: ModuleType | None) -> ModuleType:
        found = PathFinder.find_spec(name, parent.__path__ if parent else None)
        code = found.loader.get_code(name) if found and found.loader else None  # type: ignore[attr-defined]
        if found is None or (code is None and found.loader is None):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if code is None:  # in C: it knows nothing of patches
            return importlib.import_module(name)
        places = found.submodule_search_locations
        spec = ModuleSpec(_PREFIX + name, None, origin=found.origin, is_package=places is not None)
        if places is not None:
            spec.submodule_search_locations = places
        module = importlib.util.module_from_spec(spec)
        module.__file__ = found.origin
        vars(module)["__builtins__"] = self._builtins
        sys.modules[spec.name] = module
        try:
            exec(code, vars(module))
        except BaseException:
            del sys.modules[spec.name]
            raise
        return module

    def _import(
        self, name: str, globals_: Any = None, locals_: Any = None, some: Any = (), level: int = 0
    ) -> ModuleType:
        """As `__import__`: copies where there are to be, else what everybody has."""
        if level:
            package = globals_["__package__"].removeprefix(_PREFIX)
            name = importlib.util.resolve_name("." * level + name, package)
        top = name.partition(".")[0]
        if top not in self._packages:
            return __import__(name, globals_, locals_, some, 0)
        module = self.load(name)
        if not some:
            return module if level else self.load(top)
        for part in some if "*" not in some else ():
            if not hasattr(module, part) and hasattr(module, "__path__"):
                self.load(f"{name}.{part}")
        return module


def _originals(name: str) -> dict[str, Any]:
    """Return what a module in C had before it was patched."""
    if green.active_hub() == "gevent":
        given: dict[str, Any] = sys.modules["gevent.monkey"].__dict__["saved"].get(name, {})
    else:
        given = vars(sys.modules["eventlet.patcher"].original(name))
    now = vars(importlib.import_module(name))
    return {k: v for k, v in {**now, **given}.items() if not (k[:2] == k[-2:] == "__")}
