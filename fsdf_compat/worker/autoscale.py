"""Autoscaling: the engine's pools grow with their work, so there is nothing to be steered.

Idle threads and greenlets end by themselves; children of prefork stay.
"""

from __future__ import annotations

from typing import Any

from .. import bootsteps
from ..utils.log import get_logger
from .components import Pool

__all__ = ("Autoscaler", "WorkerComponent")
logger = get_logger("celery.worker.autoscale")


class Autoscaler:
    """Says how many slots a worker has; a pool starts threads and children as it needs them."""

    def __init__(self, pool: Any, max_concurrency: int, min_concurrency: int = 0, **_: Any) -> None:
        self.pool = pool
        self.max_concurrency, self.min_concurrency = max_concurrency, min_concurrency

    def info(self) -> dict[str, Any]:
        """Return what `inspect stats` shows of it."""
        size = self.pool.num_processes
        return {"max": self.max_concurrency, "min": self.min_concurrency, "current": size}


class WorkerComponent(bootsteps.Step):
    """Makes `worker.autoscaler` where `--autoscale` is given."""

    label = "Autoscaler"
    conditional = True
    requires = (Pool,)  # which reads the option

    def __init__(self, w: Any, **kwargs: Any) -> None:
        self.enabled = w.autoscale
        w.autoscaler = None
        super().__init__(w, **kwargs)

    def create(self, w: Any) -> None:
        """Make the object, and say what it means here."""
        logger.warning(
            "--autoscale=%s,%s: up to %s slots start as work needs them; threads and greenlets that"
            " were idle for a minute end, children stay",
            w.max_concurrency, w.min_concurrency, w.max_concurrency,
        )  # fmt: skip
        w.autoscaler = Autoscaler(w.pool, w.max_concurrency, w.min_concurrency)

    def info(self, w: Any) -> dict[str, Any]:
        """Return what `inspect stats` shows of it."""
        return {"autoscaler": w.autoscaler.info()}
