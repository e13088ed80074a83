"""Runs in threads."""

from __future__ import annotations

from typing import Any

from .base import BasePool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """A pool of threads."""

    mode = "threads"

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "threads": self.limit}
