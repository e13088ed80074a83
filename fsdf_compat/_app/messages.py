"""Messages in Celery's own forms, protocols 2 and 1: what receivers of signals and tools see."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from dateutil.parser import isoparse

from fsdf_engine import seconds_of

from .._engine.codec import LAST
from ..utils.nodenames import anon_nodename
from ..utils.saferepr import saferepr
from ..utils.time import add_seconds_to_datetime, maybe_make_aware

__all__ = [
    "INT_MIN", "Shown", "as_task_v1", "as_task_v2", "checked", "instant", "moments", "task_message",
]  # fmt: skip

INT_MIN = -(1 << 31)  # the earliest second that `time.mktime` knows


class task_message(NamedTuple):
    """One message, before it is published."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None


class Shown(str):
    """The text of arguments that was made here, and that nobody gave."""

    __slots__ = ()


def checked(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a call.

    Raises:
        TypeError: they are no list or tuple, or no mapping.
    """
    args, kwargs = args or (), kwargs or {}
    if not isinstance(args, (list, tuple)):
        raise TypeError("task args must be a list or tuple")
    if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError("task keyword arguments must be a mapping")
    return args, kwargs


def moments(
    amqp: Any, countdown: Any, eta: Any, expires: Any, now: Any = None,
    zone: Callable[[], Any] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Return when a message may run and until when, as ISO texts; None: no bound.

    `zone` makes naive instants aware; without it they are as `now` is.

    Raises:
        ValueError: one is none, or out of range; names it.
    """
    if countdown:
        eta = _later(amqp, countdown, "countdown", now, zone)
    if expires is not None and isinstance(expires, numbers.Real):
        expires = _later(amqp, expires, "expires", now, zone)
    return _iso("eta", eta), _iso("expires", expires)


def _later(amqp: Any, seconds: Any, what: str, now: Any, zone: Any) -> Any:
    if isinstance(seconds, numbers.Real):
        amqp._verify_seconds(seconds, what)
    try:
        moment = add_seconds_to_datetime(now or amqp.app.now(), seconds)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{what}={seconds!r}: give seconds, to the year 9999 at most") from error
    return moment if zone is None else maybe_make_aware(moment, tz=zone())


def _iso(what: str, moment: Any) -> Any:
    if isinstance(moment, datetime):
        return moment.isoformat()
    if moment:
        instant(what, moment)
    return moment or None


def instant(what: str, given: Any) -> float:
    """Return the Unix seconds of a datetime or an ISO text; what names no zone is UTC.

    Raises:
        ValueError: it is none, and no number of seconds; names it.
    """
    moment = given
    if isinstance(given, str):
        with suppress(ValueError):  # what it is none of is told below
            moment = isoparse(given)
    if isinstance(moment, datetime):  # 0 would say that there is none
        return min(max(maybe_make_aware(moment).timestamp(), 1.0), LAST)
    return seconds_of(what, moment, ValueError, given, "a datetime, an ISO text or seconds")


def as_task_v2(
    self: Any, task_id: str, name: str, args: Any = None, kwargs: Any = None,
    countdown: Any = None, eta: Any = None, group_id: Any = None, group_index: Any = None,
    expires: Any = None, retries: int = 0, chord: Any = None, callbacks: Any = None,
    errbacks: Any = None, reply_to: Any = None, time_limit: Any = None,
    soft_time_limit: Any = None, create_sent_event: bool = False, root_id: Any = None,
    parent_id: Any = None, shadow: Any = None, chain: Any = None, now: Any = None,
    timezone: Any = None, origin: Any = None, ignore_result: Any = False, argsrepr: Any = None,
    kwargsrepr: Any = None, stamped_headers: Any = None, replaced_task_nesting: int = 0,
    **options: Any,
) -> task_message:  # fmt: skip
    """Return a call as a message of protocol 2."""
    args, kwargs = checked(args, kwargs)
    zone = (lambda: timezone) if timezone else (lambda: self.app.timezone)
    eta, expires = moments(self, countdown, eta, expires, now, zone)
    levels = self.app.conf.task_repr_maxlevels
    if argsrepr is None:
        argsrepr = Shown(saferepr(args, self.argsrepr_maxsize, maxlevels=levels))
    if kwargsrepr is None:
        kwargsrepr = Shown(saferepr(kwargs, self.kwargsrepr_maxsize, maxlevels=levels))
    root_id = root_id or task_id
    headers = {
        "lang": "py", "task": name, "id": task_id, "shadow": shadow, "eta": eta,
        "expires": expires, "group": group_id, "group_index": group_index, "retries": retries,
        "timelimit": [time_limit, soft_time_limit], "root_id": root_id, "parent_id": parent_id,
        "argsrepr": argsrepr, "kwargsrepr": kwargsrepr, "origin": origin or anon_nodename(),
        "ignore_result": ignore_result, "replaced_task_nesting": replaced_task_nesting,
        "stamped_headers": stamped_headers,
        "stamps": {header: options[header] for header in stamped_headers or ()},
    }  # fmt: skip
    links = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": chord}
    event = {
        "uuid": task_id, "root_id": root_id, "parent_id": parent_id, "name": name,
        "args": argsrepr, "kwargs": kwargsrepr, "retries": retries, "eta": eta,
        "expires": expires,
    }  # fmt: skip
    properties = {"correlation_id": task_id, "reply_to": reply_to or ""}
    return task_message(
        headers, properties, (args, kwargs, links), event if create_sent_event else None
    )


def as_task_v1(
    self: Any, task_id: str, name: str, args: Any = None, kwargs: Any = None,
    countdown: Any = None, eta: Any = None, group_id: Any = None, group_index: Any = None,
    expires: Any = None, retries: int = 0, chord: Any = None, callbacks: Any = None,
    errbacks: Any = None, reply_to: Any = None, time_limit: Any = None,
    soft_time_limit: Any = None, create_sent_event: bool = False, root_id: Any = None,
    parent_id: Any = None, shadow: Any = None, now: Any = None, timezone: Any = None,
    **compat_kwargs: Any,
) -> task_message:  # fmt: skip
    """Return a call as a message of protocol 1, which knows no root, parent or shadow."""
    args, kwargs = checked(args, kwargs)
    eta, expires = moments(self, countdown, eta, expires, now)
    body = {
        "task": name, "id": task_id, "args": args, "kwargs": kwargs, "group": group_id,
        "group_index": group_index, "retries": retries, "eta": eta, "expires": expires,
        "utc": self.utc, "callbacks": callbacks, "errbacks": errbacks,
        "timelimit": (time_limit, soft_time_limit), "taskset": group_id, "chord": chord,
    }  # fmt: skip
    event = {
        "uuid": task_id, "name": name, "args": saferepr(args), "kwargs": saferepr(kwargs),
        "retries": retries, "eta": eta, "expires": expires,
    }  # fmt: skip
    properties = {"correlation_id": task_id, "reply_to": reply_to or ""}
    return task_message({}, properties, body, event if create_sent_event else None)
