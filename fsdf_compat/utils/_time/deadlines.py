"""How long until something is due, by the clock on the wall."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime, timedelta, timezone
from typing import Any

from dateutil import tz as dateutil_tz
from kombu.utils.functional import dictfilter, reprcall

from .arithmetic import add_seconds_to_datetime, is_imaginary

__all__ = ["delta_resolution", "ffwd", "remaining"]

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """Cut a date at the largest unit that `delta` is at least one of: day, hour, minute."""
    for unit, fields in (DAY, 3), (HOUR, 4), (MINUTE, 5):
        if delta >= unit:
            return datetime(*dt.timetuple()[:fields], tzinfo=dt.tzinfo, fold=dt.fold)  # type: ignore[misc, arg-type]
    return dt


def _occurrences(dt: datetime, delta: timedelta) -> list[datetime]:
    """Return, in UTC, both instants at which a wall clock may show the rounded date."""
    rounded = delta_resolution(dt, delta).replace(microsecond=0)
    found = []
    for fold in (0, 1):
        candidate = rounded.replace(fold=fold)
        if is_imaginary(candidate, candidate.tzinfo):
            # Some zones take a time that comes twice for one that never comes: a gap moves
            # forwards.
            candidate = max(candidate, dateutil_tz.resolve_imaginary(candidate))
        found.append(candidate.astimezone(timezone.utc))
    return found


def _rounded_end(start: datetime, end: datetime, delta: timedelta) -> datetime:
    """Return the last round time up to `end` that is after `start`; the next one if none is."""
    begin = start.astimezone(timezone.utc)
    candidates = _occurrences(end, delta)
    if delta >= DAY:
        later = [dt for dt in candidates if dt > begin]
        return min(later, default=end.astimezone(timezone.utc))
    limit = begin + delta
    best = max((dt for dt in candidates if dt <= limit), default=min(candidates))
    if delta < MINUTE or best > begin:
        return best
    # The clock was put back in between.
    unit = HOUR if delta >= HOUR else MINUTE
    candidates += _occurrences(end + unit, delta) + _occurrences(start + delta, delta)
    later = [dt for dt in candidates if dt > begin]
    return max((dt for dt in later if dt <= limit), default=min(later, default=limit))


def remaining(
    start: datetime, ends_in: Any, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """Return the time from now until `ends_in`, a timedelta or ffwd, after `start`.

    `relative` ends at the last full day, hour or minute before, never at or before `start`; days
    are those of the calendar.
    """
    now = now or datetime.now(timezone.utc)
    if isinstance(ends_in, timedelta) and not (relative and ends_in >= DAY):
        end = add_seconds_to_datetime(start, ends_in.total_seconds())
    else:
        end = start + ends_in
    if relative:
        end = _rounded_end(start, end, ends_in)
    # Dates of one zone are subtracted as the wall shows them.
    return end.astimezone(timezone.utc) - now.astimezone(timezone.utc)


class ffwd:
    """Fields to be set in a date that it is added to, the next such weekday, and weeks on top."""

    __module__ = __name__.replace("._time.deadlines", ".time")

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: int = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.year, self.month, self.weeks, self.weekday, self.day = year, month, weeks, weekday, day
        self.hour, self.minute, self.second, self.microsecond = hour, minute, second, microsecond
        self.days = weeks * 7
        self._has_time = hour is not None or minute is not None

    def __repr__(self) -> str:
        return reprcall("ffwd", (), self._fields(weeks=self.weeks, weekday=self.weekday))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, date):
            return NotImplemented
        year, month = self.year or other.year, self.month or other.month
        last = monthrange(year, month)[1]
        fields = self._fields() | {"year": year, "month": month}
        moved = other.replace(**fields | {"day": min(last, self.day or other.day)})
        if self.weekday is not None:
            moved += timedelta(days=(self.weekday - moved.weekday()) % 7)
        return moved + timedelta(days=self.days)

    def _fields(self, **extra: Any) -> dict[str, Any]:
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        return dict(dictfilter({name: getattr(self, name) for name in names}, **extra))
