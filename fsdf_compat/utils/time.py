"""Dates, intervals, rates and zones."""

from __future__ import annotations

import functools
import logging
import numbers
import random
import time as _time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as _utc
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.parser import isoparse
from kombu.utils.objects import cached_property

from ._time.arithmetic import add_seconds_to_datetime, is_naive, localize, make_aware
from ._time.arithmetic import is_ambiguous as _is_ambiguous
from ._time.arithmetic import is_imaginary as _is_imaginary
from ._time.deadlines import delta_resolution, ffwd, remaining
from ._time.zones import ZERO, LocalTimezone, get_localzone
from .text import pluralize

__all__ = [
    "LocalTimezone", "timezone", "maybe_timedelta", "delta_resolution", "remaining", "rate",
    "weekday", "humanize_seconds", "maybe_iso8601", "is_naive", "add_seconds_to_datetime",
    "subtract_datetimes", "make_aware", "localize", "to_utc", "maybe_make_aware", "ffwd",
    "utcoffset", "adjust_timestamp", "get_exponential_backoff_interval",
    "DAYNAMES", "MONTHNAMES", "WEEKDAYS", "YEARMONTHS", "ZERO", "_is_ambiguous", "_is_imaginary",
    "yearmonth",
]  # fmt: skip

logger = logging.getLogger("celery.utils.time")

DAYNAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
WEEKDAYS = {name: number for number, name in enumerate(DAYNAMES)}

MONTHNAMES = (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
YEARMONTHS = {name: number for number, name in enumerate(MONTHNAMES, 1)}

RATE_MODIFIER_MAP: dict[str, Callable[[float], float]] = {
    "s": lambda n: n,
    "m": lambda n: n / 60.0,
    "h": lambda n: n / 60.0 / 60.0,
}

_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


class _Zone:
    """The zones that an app may be in: UTC, this machine's, or any other."""

    def tz_or_local(self, tzinfo: Any = None) -> tzinfo:
        """Return the zone, by its name, too; None is this machine's."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def get_timezone(self, zone: Any) -> tzinfo:
        """Return the zone of a name; a zone as it is."""
        return ZoneInfo(zone) if isinstance(zone, str) else zone

    def to_local(self, dt: datetime, local: Any = None, orig: tzinfo | None = None) -> datetime:
        """Return a date in a zone; one without is in `orig`, or UTC."""
        if is_naive(dt):
            dt = make_aware(dt, orig or self.utc)
        return localize(dt, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """Return a date in this machine's zone."""
        return dt.astimezone(tz=None)

    def to_local_fallback(self, dt: datetime) -> datetime:
        """Return a date in this machine's zone; one without is in it."""
        return make_aware(dt, self.local) if is_naive(dt) else localize(dt, self.local)

    @cached_property
    def local(self) -> tzinfo:
        """This machine's zone."""
        try:
            return get_localzone() or LocalTimezone()
        except Exception as error:  # whatever a machine's files hold, it has a clock
            name = type(error).__name__
            logger.warning("Failed to retrieve local timezone (%s): %s", name, error)
            return LocalTimezone()

    @functools.cached_property  # kombu's is slower, and this is asked for every result
    def utc(self) -> tzinfo:
        """UTC."""
        return self.get_timezone("UTC")


timezone = _Zone()


def maybe_timedelta(delta: Any) -> Any:
    """Return a number as that many seconds; anything else as it is."""
    return timedelta(seconds=delta) if isinstance(delta, numbers.Real) else delta  # type: ignore[arg-type]


def rate(r: Any) -> float:
    """Return how many a second `"100/m"` or a number means; nothing is 0."""
    if not isinstance(r, str):
        return r or 0
    if not r:
        return 0
    number, _, unit = r.partition("/")
    return RATE_MODIFIER_MAP[unit or "s"](float(number)) or 0


def weekday(name: str) -> int:
    """Return the number of a day by its first three letters; Sunday is 0."""
    return _numbered(name, WEEKDAYS)


def yearmonth(name: str) -> int:
    """Return the number of a month by its first three letters; January is 1."""
    return _numbered(name, YEARMONTHS)


def _numbered(name: str, numbers: dict[str, int]) -> int:
    try:
        return numbers[name[:3].lower()]
    except KeyError:
        raise KeyError(name) from None


def humanize_seconds(
    secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False
) -> str:
    """Say how long it is, in the largest unit: "2.00 hours"; `prefix` and `sep` before it."""
    secs = round(float(secs), 2)
    for unit, seconds in _UNITS:
        if secs >= seconds:
            count = secs / seconds
            return f"{prefix}{sep}{count:.2f} {pluralize(count, unit)}"
    return f"{prefix}{sep}{secs:.2f} seconds" if microseconds and secs > 0 else now


def maybe_iso8601(dt: Any) -> Any:
    """Return the date that a text says; a date as it is, nothing as None."""
    if not dt:
        return None
    return dt if isinstance(dt, datetime) else isoparse(dt)


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """Return the time between two dates; naive ones are UTC."""
    first, last = (maybe_make_aware(dt).astimezone(_utc.utc) for dt in (start, end))
    return last - first


def to_utc(dt: datetime) -> datetime:
    """Return a naive date as one in UTC."""
    return dt if dt.tzinfo is timezone.utc else make_aware(dt, timezone.utc)


def maybe_make_aware(dt: datetime, tz: Any = None, naive_as_utc: bool = True) -> datetime:
    """Return a naive date, of UTC or else of `tz`, in `tz`; others as they are."""
    if not is_naive(dt):
        return dt
    if naive_as_utc:
        dt = to_utc(dt)
    return localize(dt, timezone.utc if tz is None else timezone.tz_or_local(tz))


def utcoffset(time: Any = _time, localtime: Callable[[], Any] = _time.localtime) -> float:
    """Return how many hours this machine's clock is behind UTC now."""
    return (time.altzone if localtime().tm_isdst else time.timezone) / 3600


def adjust_timestamp(ts: float, offset: float, here: Callable[[], float] = utcoffset) -> float:
    """Return a time of a clock that is `offset` hours behind UTC as one of this machine's."""
    return ts - (offset - here()) * 3600


def get_exponential_backoff_interval(
    factor: int, retries: int, maximum: int, full_jitter: bool = False
) -> int:
    """Return the seconds before a retry: `factor`, doubled each time, at most `maximum`.

    `full_jitter` takes any number up to that.
    """
    countdown = min(maximum, factor * 2**retries)
    return max(0, random.randrange(countdown + 1) if full_jitter else countdown)
