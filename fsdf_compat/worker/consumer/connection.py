"""The engine connects for itself; a step that requires this one starts afterwards."""

from __future__ import annotations

from typing import Any

from kombu.utils.url import maybe_sanitize_url

from ... import bootsteps

__all__ = ("Connection",)


class Connection(bootsteps.StartStopStep):
    """The engine connects for itself; a step that requires this one starts afterwards."""

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.connection = None

    def info(self, c: Any) -> dict[str, Any]:
        """Return what `inspect stats` shows of the broker, without its passwords."""
        shown = c.app.connection_for_read().info()
        shown.pop("password", None)
        if alternates := shown.get("alternates"):
            urls = alternates.split(";") if isinstance(alternates, str) else alternates
            shown["alternates"] = [maybe_sanitize_url(url) for url in urls]
        return {"broker": shown}
