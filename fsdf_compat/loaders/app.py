"""The loader of apps that are made by hand."""

from __future__ import annotations

from .base import BaseLoader

__all__ = ["AppLoader"]


class AppLoader(BaseLoader):
    """Adds nothing: settings come from the app."""
