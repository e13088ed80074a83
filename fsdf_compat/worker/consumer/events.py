"""Task events: there are none yet."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .connection import Connection

__all__ = ("Events",)


class Events(bootsteps.StartStopStep):
    """Task events: there are none yet."""

    requires = (Connection,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.event_dispatcher = None
