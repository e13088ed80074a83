"""The messages: one consumer of the engine for each queue, over one pool."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .control import Control

__all__ = ("Tasks",)
FOREVER = 365 * 86_400.0  # seconds; a warm shutdown waits for every run


class Tasks(bootsteps.StartStopStep):
    """Starts to fetch, and stops: what runs ends before, in a warm shutdown."""

    requires = (Control,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        c.task_consumer = c.qos = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Consume the chosen queues."""
        c.update_strategies()
        c.task_consumer = c
        for name in [*c.app.amqp.queues.consume_from]:
            c.consume_from(name)

    def stop(self, c: Any) -> None:
        """Fetch no more; wait for what runs. Blocks."""
        c.app.engine.stop(drain=True, timeout=FOREVER)

    def terminate(self, c: Any) -> None:
        """Fetch no more; what runs is interrupted, and goes back if it can. Blocks."""
        c.app.engine.stop(drain=False)

    def shutdown(self, c: Any) -> None:
        """Nothing is left."""
        c.task_consumer = None

    def info(self, c: Any) -> dict[str, Any]:
        """Return what `inspect stats` shows of it."""
        return {"prefetch_count": c.initial_prefetch_count}
