"""The public module, of which all of this is a part: classes refer to each other through it."""

from __future__ import annotations

from .._upward import LateModule

__all__ = ["canvas"]
canvas = LateModule("canvas")
