"""Autoscaling: the engine's pools grow with their work, and shrink when it is done.

So there is nothing to be steered: how few may be left is told to the pool before it starts.
"""

from __future__ import annotations

import os
from typing import Any

from .. import bootsteps
from ..utils.log import get_logger
from .components import Pool

__all__ = ("AUTOSCALE_KEEPALIVE", "Autoscaler", "WorkerComponent")
logger = get_logger("celery.worker.autoscale")
#: Seconds without a run after which a child of prefork ends; an environment variable says others.
AUTOSCALE_KEEPALIVE = float(os.environ.get("AUTOSCALE_KEEPALIVE", 30))


class Autoscaler:
    """Says how many slots a worker has; a pool starts threads and children as it needs them."""

    def __init__(
        self, pool: Any, max_concurrency: int, min_concurrency: int = 0, worker: Any = None,
        keepalive: float = AUTOSCALE_KEEPALIVE, **_: Any,
    ) -> None:  # fmt: skip
        self.pool, self.worker, self.keepalive = pool, worker, keepalive
        self.max_concurrency, self.min_concurrency = max_concurrency, min_concurrency
        pool.keep(min_concurrency, keepalive)

    def info(self) -> dict[str, Any]:
        """Return what `inspect stats` shows of it."""
        current = self.pool.num_started
        return {"max": self.max_concurrency, "min": self.min_concurrency, "current": current}


class WorkerComponent(bootsteps.StartStopStep):  # which `inspect stats` asks
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
        w.autoscaler = Autoscaler(w.pool, w.max_concurrency, w.min_concurrency, w)
        logger.info(
            "--autoscale=%s,%s: up to %s slots start as work needs them; %s",
            w.max_concurrency, w.min_concurrency, w.max_concurrency, w.pool.thinning(),
        )  # fmt: skip

    def info(self, w: Any) -> dict[str, Any]:
        """Return what `inspect stats` shows of it."""
        return {"autoscaler": w.autoscaler.info()}
