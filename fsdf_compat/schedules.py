"""When periodic tasks run: `schedule`, `crontab`, `solar`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ._schedules.base import BaseSchedule, schedstate
from ._schedules.cron import ParseException, cronfield, crontab, crontab_parser
from ._schedules.sun import solar
from .utils.time import humanize_seconds, maybe_timedelta, remaining

__all__ = ["ParseException", "crontab", "crontab_parser", "maybe_schedule", "schedule", "solar"]
for _part in (BaseSchedule, ParseException, cronfield, crontab, crontab_parser, schedstate, solar):
    _part.__module__ = __name__  # where users, and files of beat, find it


class schedule(BaseSchedule):
    """Every `run_every` (seconds or a timedelta); `relative`: at round times of that length."""

    relative = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        self.run_every: Any = maybe_timedelta(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return how long it is until the next run after `last_run_at`."""
        last, now = self.maybe_make_aware(last_run_at), self.maybe_make_aware(self.now())
        return remaining(last, self.run_every, now, self.relative)

    def is_due(self, last_run_at: datetime) -> tuple[bool, Any]:
        """Return (whether it is to run now, the seconds after which to ask again)."""
        last = self.maybe_make_aware(last_run_at)
        left = max(0, self.remaining_estimate(last).total_seconds())
        if left:
            return schedstate(False, left)
        after = 0.0
        if self.relative:  # the next round time may be nearer or farther than one interval
            now = self.maybe_make_aware(self.now()).astimezone(last.tzinfo)
            after = self.remaining_estimate(now).total_seconds()
        return schedstate(True, after if after > 0 else self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        every = other.run_every if isinstance(other, schedule) else other
        return bool(self.run_every == every)

    def __reduce__(self) -> Any:
        return self.__class__, (self.run_every, self.relative, self.nowfun)

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return max(self.run_every.total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        """The interval in words."""
        return humanize_seconds(self.seconds)


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return a schedule of seconds or of a timedelta; one that is a schedule is given its app."""
    if isinstance(s, (int, float)):
        s = timedelta(seconds=s)
    if isinstance(s, timedelta):
        return schedule(s, relative, app=app)
    if s is not None:
        s.app = app
    return s
