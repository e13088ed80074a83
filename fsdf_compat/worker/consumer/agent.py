"""There are no agents."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .connection import Connection

__all__ = ("Agent",)


class Agent(bootsteps.StartStopStep):
    """There are no agents."""

    requires = (Connection,)
    conditional = True

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.agent = self.agent = None
