"""Runs one by one."""

from __future__ import annotations

import os
from typing import Any

from .. import signals
from .base import BasePool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """One slot, in this process, which is told to be one that runs tasks."""

    mode = "inline"

    def __init__(self, limit: int | None = None, **options: Any) -> None:
        super().__init__(1, **options)

    def on_start(self) -> None:
        """Make the engine's pool."""
        super().on_start()
        node = self.options.get("initargs", (None, None))[1]
        signals.worker_process_init.send(sender=node)

    def _get_info(self) -> dict[str, Any]:
        about = {"max-concurrency": 1, "processes": [os.getpid()]}
        return {**super()._get_info(), **about, "max-tasks-per-child": None, "timeouts": ()}
