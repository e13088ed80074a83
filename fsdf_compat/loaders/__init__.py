"""Loaders: where an app's settings come from, which modules it imports, and hooks of a worker."""

from __future__ import annotations

from typing import Any

from ..utils.imports import import_from_cwd, symbol_by_name

__all__ = ["get_loader_cls"]

LOADER_ALIASES = {
    "app": "celery.loaders.app:AppLoader",
    "default": "celery.loaders.default:Loader",
}


def get_loader_cls(loader: Any) -> Any:
    """Return the class of a loader: "app", "default", "module:class", or the class itself."""
    return symbol_by_name(LOADER_ALIASES.get(loader, loader), imp=import_from_cwd)
