"""Schedules as cron has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, TypeAlias

from ..utils.time import ffwd as Ffwd
from ..utils.time import remaining, weekday, yearmonth
from ..utils.time import timezone as zones
from .base import BaseSchedule, schedstate

__all__ = ["ParseException", "cronfield", "crontab", "crontab_parser"]
Cronspec: TypeAlias = int | str | Iterable[int]
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month, at most
_YEARS = 41  # within which every possible combination of a date and a weekday comes


class ParseException(Exception):
    """A part of a crontab expression is missing."""


def cronfield(s: Cronspec | None) -> Cronspec:
    """Return a field of a crontab; what is not given is any value."""
    return "*" if s is None else s


class crontab_parser:
    """Expands one field of a crontab to the set of its numbers, of `min_` to `min_ + max_ - 1`.

    A field is parts between commas, each `*`, a number or name, or a range `a-b`, which may wrap
    around; `*` and ranges may be followed by `/n`, every n-th.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_, self.min_ = max_, min_

    def parse(self, spec: str) -> set[int]:
        """Return the numbers.

        Raises:
            ParseException: a part is empty or negative.
            ValueError: a number is out of range, or no number and no name.
        """
        return {number for part in spec.split(",") for number in self._parse_part(part.strip())}

    def _parse_part(self, part: str) -> list[int]:
        numbers, slash, steps = part.partition("/")
        if numbers == "*":
            toks: tuple[str, ...] = ()
        elif found := re.fullmatch(r"(\w+)-(\w+)", numbers):
            toks = found.groups()
        elif numbers:
            toks = (part,)
            slash = ""
        else:
            raise self.ParseException("empty part")
        if not slash:
            return self._expand_range(toks)
        return self._range_steps([*(toks or (None, None)), steps])

    def _range_steps(self, toks: list[Any]) -> list[int]:
        if len(toks) != 3 or not toks[2]:
            raise self.ParseException("empty filter")
        return self._expand_range(tuple(toks[:2]) if toks[0] else ())[:: int(toks[2])]

    def _expand_range(self, toks: tuple[str, ...]) -> list[int]:
        everything = list(range(self.min_, self.min_ + self.max_))
        if not toks:
            return everything
        first, last = self._expand_number(toks[0]), self._expand_number(toks[-1])
        at, end = first - self.min_, last - self.min_ + 1
        return everything[at:end] if first <= last else everything[at:] + everything[:end]

    def _expand_number(self, s: str) -> int:
        if s.startswith("-"):
            raise self.ParseException("negative numbers not supported")
        number = self._number(s)
        if not self.min_ <= number < self.min_ + self.max_:
            last = self.min_ + self.max_ - 1
            raise ValueError(f"{number} is not in the range of {self.min_} to {last}")
        return number

    @staticmethod
    def _number(s: str) -> int:
        if s.isdecimal():
            return int(s)
        for names in (yearmonth, weekday):
            try:
                return names(s)
            except KeyError:
                pass
        raise ValueError(f"Invalid weekday literal {s!r}.")


class crontab(BaseSchedule):
    """At the minutes that match all five fields, as cron has them; Sunday is day 0 of a week.

    A field is a number, a set or list of numbers, or text as `crontab_parser` takes it. A minute
    that a change of the clocks leaves out is left out; of one that comes twice the first counts.

    Raises:
        ValueError: a number is out of range, or none of the days is in any of the months.
    """

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        **kwargs: Any,
    ) -> None:
        self._orig_minute, self._orig_hour = cronfield(minute), cronfield(hour)
        self._orig_day_of_week = cronfield(day_of_week)
        self._orig_day_of_month = cronfield(day_of_month)
        self._orig_month_of_year = cronfield(month_of_year)
        self._orig_kwargs = kwargs
        self.hour = self._expand_cronspec(hour, 24)
        self.minute = self._expand_cronspec(minute, 60)
        self.day_of_week = self._expand_cronspec(day_of_week, 7)
        self.day_of_month = self._expand_cronspec(day_of_month, 31, 1)
        self.month_of_year = self._expand_cronspec(month_of_year, 12, 1)
        longest = max((_LONGEST[month - 1] for month in self.month_of_year), default=0)
        if min(self.day_of_month, default=32) > longest:
            raise ValueError(
                f"Invalid crontab: day_of_month {self._orig_day_of_month!r} never occurs in"
                f" month_of_year {self._orig_month_of_year!r}."
            )
        super().__init__(**kwargs)

    @classmethod
    def from_string(cls, crontab: str) -> crontab:
        """Make one of cron's own line: minute, hour, day of month, month, day of week."""
        minute, hour, day_of_month, month_of_year, day_of_week = crontab.split(" ")
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    @staticmethod
    def _expand_cronspec(cronspec: Cronspec, max_: int, min_: int = 0) -> set[int]:
        if isinstance(cronspec, int):
            numbers = {cronspec}
        elif isinstance(cronspec, str):
            numbers = crontab_parser(max_, min_).parse(cronspec)
        elif isinstance(cronspec, Iterable):
            numbers = set(cronspec)
        else:
            raise TypeError(
                "a field of a crontab is an int, a str or an iterable of ints;"
                f" {type(cronspec)!r} was given"
            )
        for number in numbers:
            if not min_ <= number < max_ + min_:
                raise ValueError(
                    f"Invalid crontab pattern: {number!r} is not within {min_}-{max_ - 1 + min_}."
                )
        return numbers

    def __repr__(self) -> str:
        fields = (self._orig_minute, self._orig_hour, self._orig_day_of_month,
                  self._orig_month_of_year, self._orig_day_of_week)  # fmt: skip
        return f"<crontab: {' '.join(map(str, fields))} (m/h/dM/MY/d)>"

    def __reduce__(self) -> Any:
        fields = (self._orig_minute, self._orig_hour, self._orig_day_of_week,
                  self._orig_day_of_month, self._orig_month_of_year)  # fmt: skip
        return self.__class__, fields, self._orig_kwargs

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__init__(**state)
        self._orig_kwargs = dict(state)

    def _days(self, start: datetime) -> Iterator[datetime]:
        """Yield the days that match, at midnight, from that of `start` on."""
        for year in range(start.year, start.year + _YEARS):
            for month in sorted(self.month_of_year):
                for day in sorted(self.day_of_month):
                    if (year, month, day) < (start.year, start.month, start.day):
                        continue
                    if day > 28 and not _exists(year, month, day):
                        continue
                    found = datetime(year, month, day)
                    if found.isoweekday() % 7 in self.day_of_week:
                        yield found

    def _next(self, last: datetime) -> datetime:
        """Return the first minute after `last` that matches, on the clock of its zone."""
        after = last.replace(tzinfo=None)
        for day in self._days(after):
            for hour in sorted(self.hour):
                if day.date() == after.date() and hour < after.hour:
                    continue
                for minute in sorted(self.minute):
                    found = day.replace(hour=hour, minute=minute)
                    if found > after and _is_shown(found, last.tzinfo):
                        return found
        raise RuntimeError(f"{self!r} has no date in the next {_YEARS} years; it is invalid")

    def remaining_delta(
        self, last_run_at: datetime, tz: str | tzinfo | None = None, ffwd: type = Ffwd
    ) -> tuple[datetime, Any, datetime]:
        """Return (`last_run_at`, what to add to it for the next run, now), all in our zone."""
        zone = zones.get_timezone(tz or self.tz)
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        now = self.maybe_make_aware(self.now()).astimezone(zone)
        at = self._next(last)
        delta = ffwd(year=at.year, month=at.month, day=at.day, hour=at.hour, minute=at.minute,
                     second=0, microsecond=0)  # fmt: skip
        return last, delta, now

    def remaining_estimate(self, last_run_at: datetime, ffwd: type = Ffwd) -> timedelta:
        """Return how long it is until the next run after `last_run_at`; below 0 if missed."""
        return remaining(*self.remaining_delta(last_run_at, ffwd=ffwd))

    def is_due(self, last_run_at: datetime) -> tuple[bool, Any]:
        """Return (whether it is to run now, the seconds after which to ask again).

        What was missed for longer than `beat_cron_starting_deadline` seconds is not made up for.
        """
        left = self.remaining_estimate(last_run_at).total_seconds()
        if left > 0:
            return schedstate(False, left)
        due, deadline = True, self.app.conf.beat_cron_starting_deadline
        if deadline is not None and left < 0:
            now = self.maybe_make_aware(self.now())
            span = timedelta(seconds=deadline, microseconds=1)  # exactly at the deadline is in time
            since = (now.astimezone(timezone.utc) - span).astimezone(now.tzinfo)
            due = self.remaining_estimate(since).total_seconds() <= 0
        return schedstate(due, max(0, self.remaining_estimate(self.now()).total_seconds()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        fields = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute", "nowfun")
        return all(getattr(self, name) == getattr(other, name) for name in fields)


def _exists(year: int, month: int, day: int) -> bool:
    try:
        return bool(datetime(year, month, day))
    except ValueError:
        return False


def _is_shown(wall: datetime, zone: tzinfo | None) -> bool:
    """Say whether the clocks of a zone ever show it: a change of the clocks may leave it out."""
    there = wall.replace(tzinfo=zone)
    return there.astimezone(timezone.utc).astimezone(zone).replace(tzinfo=None) == wall
