"""What is given with one call: its arguments as JSON, and what is decided for it alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import orjson

from .codec import revive
from .errors import ArgumentError

__all__ = ["Control", "arguments_of", "check_times"]


class Control(TypedDict, total=False):
    """What may be decided for one call.

    `countdown` seconds from now, or `eta` (Unix seconds), the run may start; `expires` (Unix
    seconds) it may no more. `priority` is 0 to 9, 9 first.
    """

    task_id: str | None
    countdown: float
    eta: float
    expires: float
    priority: int | None
    headers: Mapping[str, Any] | None


def check_times(**times: float) -> None:
    """Refuse what is no finite number of seconds from 0.

    Raises:
        ArgumentError: names it.
    """
    for name, value in times.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise ArgumentError(f"{name}={value!r} is no number of seconds of 0 or more")


def arguments_of(message: Mapping[str, Any] | str | bytes) -> Mapping[str, Any]:
    """Return the named arguments that a mapping or JSON text holds.

    Raises:
        ArgumentError: it holds none.
    """
    if isinstance(message, (str, bytes)):
        try:
            parsed = orjson.loads(message)
            message = {k: revive(v) for k, v in parsed.items()} if type(parsed) is dict else parsed
        except Exception as error:
            raise ArgumentError(f"the message is not JSON: {error}") from None
    if not isinstance(message, Mapping):
        raise ArgumentError(f"the message {message!r} is no object of named arguments")
    return message
