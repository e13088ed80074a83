"""Workers need not meet: what is revoked is known to all of them by the broker."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .events import Events

__all__ = ("Mingle",)


class Mingle(bootsteps.StartStopStep):
    """Workers need not meet: what is revoked is known to all of them by the broker."""

    requires = (Events,)
    label = "Mingle"

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.enabled = False
