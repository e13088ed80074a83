"""What is given with one call: its arguments as JSON, and what is decided for it alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

import orjson

from .codec import revive
from .errors import ArgumentError, duration_of, seconds_of
from .limits import check_limits
from .message import Extra
from .spelling import did_you_mean

if TYPE_CHECKING:
    from .contracts import Outgoing
    from .core.writer import Writer

__all__ = ["Control", "arguments_of", "call_of", "calls_of", "instant_of"]


class Control(TypedDict, total=False):
    """What may be decided for one call.

    `countdown` (a timedelta or seconds) from now, or at `eta`, the run may start; at `expires` it
    may no more. These two are a datetime, local time if it names no zone, or Unix seconds.
    `priority` is -9 to 9, 9 first. `function_timeout` and `soft_time_limit` seconds replace the
    task's; 0: as the task has them.
    """

    task_id: str | None
    countdown: float | timedelta
    eta: float | datetime
    expires: float | datetime
    priority: int | None
    headers: Mapping[str, Any] | None
    function_timeout: float
    soft_time_limit: float


def call_of(
    write: Writer,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    now: float,
    /,
    *,
    task_id: str | None = None,
    countdown: float | timedelta = 0.0,
    eta: float | datetime = 0.0,
    expires: float | datetime = 0.0,
    priority: int | None = None,
    headers: Mapping[str, Any] | None = None,
    function_timeout: float = 0.0,
    soft_time_limit: float = 0.0,
    **unknown: object,
) -> Outgoing:
    """Return the message of one call, with what is decided for it alone.

    Raises:
        ArgumentError: names what is wrong.
    """
    if unknown:
        raise _unknown(next(iter(unknown)))
    delay = duration_of("countdown", countdown, ArgumentError)
    not_before = instant_of("eta", eta)
    _check_call(task_id, priority)
    extra = _extra_of(headers, expires, soft_time_limit, function_timeout)
    outgoing = write(args, kwargs, now, extra, task_id or "")
    outgoing.delay, outgoing.not_before = delay, not_before
    if priority is not None:
        outgoing.priority = priority
    return outgoing


def _unknown(name: str) -> ArgumentError:
    hint = did_you_mean(name, Control.__annotations__)
    return ArgumentError(
        f"unknown option {name!r} of one call{hint} ({__name__}.Control has all of them)"
    )


def instant_of(name: str, given: float | datetime) -> float:
    """Return an instant in Unix seconds; a datetime without a zone is local time.

    Raises:
        ArgumentError: it is none; names it.
    """
    try:
        seconds = given.timestamp() if isinstance(given, datetime) else given
    except (OverflowError, ValueError, OSError):  # beyond what the system's clock knows
        seconds = math.nan
    return seconds_of(name, seconds, ArgumentError, given, "a datetime, or Unix seconds")


def _check_call(task_id: str | None, priority: int | None) -> None:
    """Refuse an id or a priority that cannot be one.

    Raises:
        ArgumentError: names the one that is wrong.
    """
    if task_id is not None and not (isinstance(task_id, str) and task_id):
        raise ArgumentError(f"task_id={task_id!r} is no text")
    number = isinstance(priority, int) and not isinstance(priority, bool)
    if priority is not None and not (number and -9 <= priority <= 9):
        raise ArgumentError(f"priority={priority!r} is no whole number from -9 to 9")


def _extra_of(
    headers: Mapping[str, Any] | None, expires: float | datetime, soft: float, hard: float
) -> Extra:
    """Return the control data of one call, beside what every message has.

    Raises:
        ArgumentError: names the one that is wrong.
    """
    if headers is not None and not isinstance(headers, Mapping):
        raise ArgumentError(f"headers={headers!r} is no mapping of names to values")
    extra: Extra = {"headers": dict(headers)} if headers else {}
    if last := instant_of("expires", expires):
        extra["expires"] = last
    if limits := _limits_given(soft, hard):
        extra["limits"] = limits
    return extra


def _limits_given(soft: float, hard: float) -> list[float] | None:
    """Return the limits of one call as they travel; None where there are none."""
    limits = [
        duration_of("soft_time_limit", soft, ArgumentError),
        duration_of("function_timeout", hard, ArgumentError),
    ]
    try:
        check_limits(limits)
    except ValueError as error:
        raise ArgumentError(str(error)) from None
    return limits if any(limits) else None


def calls_of(write: Writer, calls: Iterable[Any], now: float, first: int = 0) -> list[Outgoing]:
    """Return the messages of calls, each a tuple of positional or a mapping of named arguments.

    `first` is the place of the first of them among all that were given.

    Raises:
        ArgumentError: a call is neither, or does not fit; names its place.
    """
    group: list[Outgoing] = []
    try:
        for call in calls:
            if isinstance(call, (tuple, list)):
                group.append(write(call, {}, now))
            elif isinstance(call, Mapping):
                group.append(write((), call, now))
            else:
                raise ArgumentError(f"{call!r} is none; give tuples or mappings of arguments")
    except ArgumentError as error:
        raise ArgumentError(f"calls[{first + len(group)}]: {error}") from error
    return group


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
