"""Dates as text; deprecated, because Python has it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from .deprecated import warn

__all__ = ["parse_iso8601"]

# A date may end after its year, month or day; `.` is any separator.
_FORM = re.compile(
    r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2})"
    r"(?:.(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|([+-])(\d\d):(\d\d))?)?)?)?"
)


def parse_iso8601(datestring: str) -> datetime:
    """Return the date; it is naive if the text names no offset.

    Raises: ValueError: it begins with no year.
    """
    warn(
        "parse_iso8601", "v5.3", "v6",
        "datetime.datetime.fromisoformat or dateutil.parser.isoparse",
    )  # fmt: skip
    found = _FORM.match(datestring)
    if found is None:
        raise ValueError(f"unable to parse date string {datestring!r}")
    *numbers, zone, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    tzinfo = timezone(-offset if sign == "-" else offset) if zone else None
    year, month, day, *clock = numbers
    hour, minute, second, micro = (int(number or 0) for number in clock)
    # A missing month or day is no date, and raises.
    return datetime(int(year), int(month), int(day), hour, minute, second, micro, tzinfo)
