"""Runs in greenlets of gevent."""

from __future__ import annotations

from .base import BasePool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """A pool of greenlets; the worker command patches the standard library for it first."""

    mode = "gevent"
    signal_safe = False
    is_green = True
    task_join_will_block = False
