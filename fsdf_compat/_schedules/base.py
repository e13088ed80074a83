"""What every schedule is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from kombu.utils.objects import cached_property

from .._state import current_app
from ..utils.time import maybe_make_aware
from ..utils.time import timezone as zones

__all__ = ["BaseSchedule", "schedstate"]


class schedstate(NamedTuple):
    """Whether something is due, and in how many seconds to ask again."""

    is_due: bool
    next: float


class BaseSchedule:
    """What a schedule of one's own derives from."""

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    def now(self) -> datetime:
        """Return the time that counts as now."""
        return (self.nowfun or self.app.now)()

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return how long it is until the next run after `last_run_at`; below 0: missed."""
        raise NotImplementedError

    def is_due(self, last_run_at: datetime) -> tuple[bool, Any]:
        """Return (whether it is to run now, the seconds after which to ask again)."""
        raise NotImplementedError

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """Return it with a zone."""
        return maybe_make_aware(dt, self.tz, naive_as_utc=naive_as_utc)

    @property
    def app(self) -> Any:
        """The app whose zone and settings hold."""
        return self._app or current_app._get_current_object()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @cached_property
    def tz(self) -> tzinfo:
        """The app's zone."""
        return self.app.timezone

    @cached_property
    def utc_enabled(self) -> bool:
        """Say whether the app counts in UTC."""
        return self.app.conf.enable_utc

    def to_local(self, dt: datetime) -> datetime:
        """Return it in local time where the app does not count in UTC."""
        return dt if self.utc_enabled else zones.to_local_fallback(dt)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return other.nowfun == self.nowfun
        return NotImplemented
