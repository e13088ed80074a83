"""The tasks of the current app. An old name, which other packages import."""

from __future__ import annotations

from .local import Proxy, getappattr

__all__ = ["tasks"]

tasks = Proxy(getappattr, ("tasks",))
