"""Messages for later wait with the broker, whichever it is."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .connection import Connection

__all__ = ("DelayedDelivery",)


class DelayedDelivery(bootsteps.StartStopStep):
    """Messages for later wait with the broker, whichever it is."""

    requires = (Connection,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.enabled = False
