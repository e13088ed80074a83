"""Workers do not gossip."""

from __future__ import annotations

from typing import Any

from ... import bootsteps
from .mingle import Mingle

__all__ = ("Gossip",)


class Gossip(bootsteps.StartStopStep):
    """Workers do not gossip."""

    requires = (Mingle,)
    label = "Gossip"

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.enabled = False
