"""Time zones: this machine's, and the app's."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone, tzinfo
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.tz import tzlocal

__all__ = ["LocalTimezone", "get_localzone"]

ZERO = timedelta(0)
_PUBLIC = __name__.replace("._time.zones", ".time")


def _clock() -> ModuleType:
    # Where users and tests put another one.
    return import_module(_PUBLIC)._time


def get_localzone() -> tzinfo:
    """Return this machine's time zone, by its name if it has one."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        try:
            name = str(Path("/etc/localtime").resolve(strict=True))
        except OSError:
            return tzlocal()
    try:
        return ZoneInfo(name.rpartition("zoneinfo/")[2])
    except (ValueError, ZoneInfoNotFoundError, OSError):
        return tzlocal()


class LocalTimezone(tzinfo):
    """This machine's time, as its C library has it."""

    __module__ = _PUBLIC

    def __init__(self) -> None:
        time = _clock()
        self.STDOFFSET = timedelta(seconds=-time.timezone)
        self.DSTOFFSET = timedelta(seconds=-(time.altzone if time.daylight else time.timezone))
        self.DSTDIFF = self.DSTOFFSET - self.STDOFFSET
        super().__init__()

    def __repr__(self) -> str:
        hours = int(self.DSTOFFSET.total_seconds() / 3600)
        return f"<LocalTimezone: UTC{hours:+03d}>"

    def utcoffset(self, dt: Any) -> timedelta:
        return self.DSTOFFSET if self._isdst(dt) else self.STDOFFSET

    def dst(self, dt: Any) -> timedelta:
        return self.DSTDIFF if self._isdst(dt) else ZERO

    def tzname(self, dt: Any) -> str:
        return str(_clock().tzname[self._isdst(dt)])

    def fromutc(self, dt: datetime) -> datetime:
        fixed = timezone(self.utcoffset(dt))
        return fixed.fromutc(dt.replace(tzinfo=fixed))

    def _isdst(self, dt: datetime) -> bool:
        time = _clock()
        wall = dt.replace(tzinfo=None).timetuple()[:6] + (dt.weekday(), 0, 0)
        return bool(time.localtime(time.mktime(wall)).tm_isdst > 0)
