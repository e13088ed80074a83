"""Runs of `async def` tasks on one loop; other tasks have threads beside it."""

from __future__ import annotations

from typing import Any

from .base import BasePool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """Slots of a loop, and a thread for each of what is no coroutine, as many as processors."""

    mode = "threads"

    def on_start(self) -> None:
        """Make the engine's pool; the limit is that of coroutines."""
        self.app.conf.worker_coroutines = self.limit
        super().on_start()

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "coroutines": self.limit}
