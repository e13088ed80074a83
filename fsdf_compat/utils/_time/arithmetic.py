"""Dates with and without a zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from dateutil import tz as dateutil_tz

__all__ = [
    "add_seconds_to_datetime", "is_ambiguous", "is_imaginary", "is_naive", "localize",
    "make_aware",
]  # fmt: skip


def is_naive(dt: datetime) -> bool:
    """Tell if a date has no zone."""
    return dt.utcoffset() is None


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """Return the date that many seconds later, whatever the clock on the wall does meanwhile."""
    delta = timedelta(seconds=seconds)
    if is_naive(dt):
        return dt + delta
    return (dt.astimezone(timezone.utc) + delta).astimezone(dt.tzinfo)


def _tells_twice(tz: Any) -> bool:
    return isinstance(tz, ZoneInfo) or hasattr(tz, "is_ambiguous")


def is_ambiguous(dt: datetime, tz: Any) -> bool:
    """Tell if the clock on the wall shows this date twice."""
    return _tells_twice(tz) and bool(dateutil_tz.datetime_ambiguous(dt))


def is_imaginary(dt: datetime, tz: Any) -> bool:
    """Tell if the clock on the wall never shows this date."""
    if not _tells_twice(tz):
        return False
    try:
        return not dateutil_tz.datetime_exists(dt, tz)
    except ValueError:  # at the ends of the calendar
        return False


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """Return a date of this zone: the first one, if there are two."""
    dt = dt.replace(tzinfo=tz)
    if not is_ambiguous(dt, tz):
        return dt
    if is_imaginary(dt, tz):
        return dateutil_tz.resolve_imaginary(dt)
    return min(dt.replace(fold=0), dt.replace(fold=1))


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Return a date in UTC as one of this zone; naive ones are of it, others stay as they are."""
    if is_naive(dt):
        dt = make_aware(dt, tz)
    return dt.astimezone(tz) if dt.tzinfo == ZoneInfo("UTC") else dt
