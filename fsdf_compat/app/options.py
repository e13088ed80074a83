"""What may be said about one call, and how the engine is told. Pure."""

from __future__ import annotations

import datetime
import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..exceptions import NotYetSupported

__all__ = ["Sending", "instant", "sending"]
_UTC = datetime.timezone.utc
USED = ("countdown", "eta", "expires", "headers", "priority", "queue", "serializer")
# About how to publish or to show, with nothing to do here: publishing is confirmed anyway.
HARMLESS = frozenset({
    "add_to_parent", "argsrepr", "connection", "kwargsrepr", "producer", "publisher", "retry",
    "retry_policy", "shadow",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sending:
    """One call's own queue, and what the engine's `send` takes."""

    queue: str
    control: dict[str, Any]

    @staticmethod
    def call(
        args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments.

        Raises:
            TypeError: they are no list or tuple, or no mapping.
        """
        if args is not None and not isinstance(args, (list, tuple)):
            raise TypeError("task args must be a list or tuple")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        return args or (), kwargs or {}


def sending(options: Mapping[str, Any]) -> Sending:
    """Check the options of one call.

    Raises:
        NotYetSupported: an option that this version does not know.
    """
    for name, value in options.items():
        if name not in USED and name not in HARMLESS and value is not None:
            close = difflib.get_close_matches(name, USED, 1)
            hint = f"did you mean {close[0]!r}?" if close else "leave it out"
            raise NotYetSupported(f"option {name}={value!r} is not implemented yet; {hint}")
    if options.get("serializer") not in (None, "json"):
        raise NotYetSupported("serializer: messages are JSON in this version")
    control: dict[str, Any] = {"countdown": max(0.0, options.get("countdown") or 0.0)}
    if (eta := options.get("eta")) is not None:
        control["eta"] = instant(eta)
    if (expires := options.get("expires")) is not None:
        control["expires"] = instant(expires)
    control["priority"] = options.get("priority")
    control["headers"] = options.get("headers")
    queue = options.get("queue") or ""
    return Sending(getattr(queue, "name", queue), control)


def instant(value: Any) -> float:
    """Return Unix seconds: of a datetime (naive: UTC) or ISO text, or so many seconds from now."""
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=_UTC)).timestamp()
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    return time.time() + float(value)
