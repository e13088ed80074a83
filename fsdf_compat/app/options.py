"""What may be said about one call, and how the engine is told. Pure."""

from __future__ import annotations

import datetime
import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..exceptions import NotYetSupported

__all__ = ["arguments", "instant", "sending"]
_UTC = datetime.timezone.utc
# About how to publish or to show, with nothing to do here: publishing is confirmed anyway.
HARMLESS = frozenset({
    "add_to_parent", "argsrepr", "connection", "kwargsrepr", "producer", "publisher", "retry",
    "retry_policy", "shadow",
})  # fmt: skip


def instant(value: Any) -> float:
    """Return Unix seconds: of a datetime (naive: UTC) or ISO text, or so many seconds from now."""
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=_UTC)).timestamp()
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    return time.time() + float(value)


# What the engine's `send` calls it, and what it takes there.
_CONTROL: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "countdown": ("countdown", lambda seconds: max(0.0, seconds)),
    "eta": ("eta", instant),
    "expires": ("expires", instant),
    "headers": ("headers", dict),
    "priority": ("priority", int),
    "soft_time_limit": ("soft_time_limit", float),
    "time_limit": ("function_timeout", float),
}
USED = (*_CONTROL, "queue", "serializer")


def arguments(
    args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of one call.

    Raises:
        TypeError: they are no list or tuple, or no mapping.
    """
    if args is not None and not isinstance(args, (list, tuple)):
        raise TypeError("task args must be a list or tuple")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError("task keyword arguments must be a mapping")
    return args or (), kwargs or {}


def sending(options: Mapping[str, Any], rank: Callable[[int], int]) -> tuple[str, dict[str, Any]]:
    """Return the queue of one call, "" for the usual one, and what the engine's `send` takes.

    `rank` gives the engine's priority for one of Celery's.

    Raises:
        NotYetSupported: an option that this version does not know.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in USED and name not in HARMLESS:
            close = difflib.get_close_matches(name, USED, 1)
            hint = f"did you mean {close[0]!r}?" if close else "leave it out"
            raise NotYetSupported(f"option {name}={value!r} is not implemented yet; {hint}")
    if given.get("serializer", "json") != "json":
        raise NotYetSupported("serializer: messages are JSON in this version")
    queue = given.get("queue", "")
    control = {new: as_(given[old]) for old, (new, as_) in _CONTROL.items() if old in given}
    if "priority" in control:
        control["priority"] = rank(control["priority"])
    return getattr(queue, "name", queue), control
