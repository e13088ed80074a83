"""How a lower module finds what stands above or beside it, when it is used: imports run one way."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["LateModule", "adopt", "upward"]
_ROOT = __name__.rpartition(".")[0]
_MODULES = sys.modules


def upward(path: str) -> ModuleType:
    """Return a module of this package by its path in it, such as "app.task"; "": the package."""
    name = f"{_ROOT}.{path}" if path else _ROOT
    return sys.modules.get(name) or importlib.import_module(name)


class LateModule:
    """Stands for a module: its attributes are looked up when they are asked for, also patched."""

    __slots__ = ("_name",)

    def __init__(self, path: str) -> None:
        self._name = f"{_ROOT}.{path}"

    def __getattr__(self, name: str) -> Any:
        return getattr(_MODULES.get(self._name) or importlib.import_module(self._name), name)


def adopt(module: str, *objects: Any) -> None:
    """Let classes and functions be those of a public module, whose parts lie elsewhere."""
    for each in objects:
        each.__module__ = module
