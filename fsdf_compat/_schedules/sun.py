"""Schedules by the sun."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from ..exceptions import ImproperlyConfigured
from ..utils.time import localize
from .base import BaseSchedule, schedstate

__all__ = ["solar"]


class _Event(NamedTuple):
    """What of the sun an event is: its height in degrees, what finds it, of its centre or edge."""

    horizon: str
    method: str
    center: bool


_RISING, _SETTING = "next_rising", "next_setting"
_EVENTS = {
    "dawn_astronomical": _Event("-18", _RISING, True),
    "dawn_nautical": _Event("-12", _RISING, True),
    "dawn_civil": _Event("-6", _RISING, True),
    "sunrise": _Event("-0:34", _RISING, False),
    "solar_noon": _Event("0", "next_transit", False),
    "sunset": _Event("-0:34", _SETTING, False),
    "dusk_civil": _Event("-6", _SETTING, True),
    "dusk_nautical": _Event("-12", _SETTING, True),
    "dusk_astronomical": _Event("-18", _SETTING, True),
}


class solar(BaseSchedule):
    """At an event of the sun, such as "sunrise", at a place given in degrees. Needs `ephem`.

    Raises:
        ValueError: there is no such event or place.
    """

    _all_events = set(_EVENTS)
    _horizons = {name: event.horizon for name, event in _EVENTS.items()}
    _methods = {name: event.method for name, event in _EVENTS.items()}
    _use_center_l = {name: event.center for name, event in _EVENTS.items()}
    max_search_days = 366  # ahead: near the poles an event may not come for months

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            self.ephem = __import__("ephem")
        except ImportError as error:
            raise ImproperlyConfigured(
                "solar schedules need the library ephem: pip install celery[solar], or ephem"
            ) from error
        self.event, self.lat, self.lon = event, lat, lon
        super().__init__(**kwargs)
        if event not in self._all_events:
            raise ValueError(f"no event {event!r}; there are {', '.join(sorted(_EVENTS))}")
        for name, value, most in (("latitude", lat, 90), ("longitude", lon, 180)):
            if not -most <= value <= most:
                raise ValueError(f"{name} {value} is not between -{most} and {most}")
        self.cal = self.ephem.Observer()
        self.cal.lat, self.cal.lon, self.cal.elev = str(lat), str(lon), 0
        self.cal.horizon, self.cal.pressure = self._horizons[event], 0
        self.method, self.use_center = self._methods[event], self._use_center_l[event]

    def __reduce__(self) -> Any:
        return self.__class__, (self.event, self.lat, self.lon)

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def _next_event(self, start: Any) -> Any:
        """Return the first such event after `start`, or the end of the search, to ask then."""
        sun, more = self.ephem.Sun(), {"use_center": True} if self.use_center else {}
        for _ in range(self.max_search_days):
            try:
                return getattr(self.cal, self.method)(sun, start=start, **more)
            except self.ephem.CircumpolarError:
                start = self.cal.next_antitransit(sun, start=start)
        return start

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return how long it is until the first event after `last_run_at`."""
        last = localize(self.maybe_make_aware(last_run_at), timezone.utc)
        self.cal.date = last
        found = self.maybe_make_aware(self._next_event(self.ephem.Date(last)).datetime())
        now = self.maybe_make_aware(self.now())
        return found.astimezone(timezone.utc) - now.astimezone(timezone.utc)

    def is_due(self, last_run_at: datetime) -> tuple[bool, Any]:
        """Return (whether it is to run now, the seconds after which to ask again)."""
        left = self.remaining_estimate(last_run_at).total_seconds()
        if left > 0:
            return schedstate(False, left)
        return schedstate(True, max(0, self.remaining_estimate(self.now()).total_seconds()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (other.event, other.lat, other.lon) == (self.event, self.lat, self.lon)
