"""Inline pool: one run at a time, in the order of submission, in one dedicated thread."""

from __future__ import annotations

import threading

from .base import SlotPool
from .threads import ThreadCarrier

__all__ = ["InlinePool"]


class InlinePool(SlotPool):
    """Runs jobs one by one; the same thread serves them all unless a run is abandoned."""

    def __init__(self, size: int = 1) -> None:
        """Take `size` as every pool does; it is always 1."""
        super().__init__(1, threading.TIMEOUT_MAX, ThreadCarrier("fsdf-inline"))
