"""What child processes take over from their parent; who owns something of that kind adds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["inherited"]
# By name: how the parent gives it (as something that can be pickled), and how a child takes it.
inherited: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {}
