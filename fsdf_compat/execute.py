"""Sending by name, of the current app. An old name, which other packages import."""

from __future__ import annotations

from .local import Proxy, getappattr

__all__ = ["send_task"]

send_task = Proxy(getappattr, ("send_task",))
