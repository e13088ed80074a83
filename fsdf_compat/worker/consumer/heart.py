"""Heartbeats are the engine's leases."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .events import Events

__all__ = ("Heart",)


class Heart(bootsteps.StartStopStep):
    """Heartbeats are the engine's leases."""

    requires = (Events,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.heart = None
