"""One entry of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import total_ordering
from typing import Any

from kombu.utils.functional import reprcall

from ..schedules import maybe_schedule

__all__ = [
    "BeatLazyFunc", "ScheduleEntry", "SchedulingError", "_evaluate_entry_args",
    "_evaluate_entry_kwargs",
]  # fmt: skip
_EDITABLE = ("task", "schedule", "args", "kwargs", "options")


class SchedulingError(Exception):
    """A task of the schedule could not be sent."""


class BeatLazyFunc:
    """An argument in `beat_schedule` that is made anew each time the task is sent.

    `"kwargs": {"at": BeatLazyFunc(datetime.now)}`.
    """

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func, self._func_params = func, {"args": args, "kwargs": kwargs}

    def __call__(self) -> Any:
        return self.delay()

    def delay(self) -> Any:
        """Call the function."""
        args: Any = self._func_params["args"]
        kwargs: Any = self._func_params["kwargs"]
        return self._func(*args, **kwargs)


def _value(given: Any) -> Any:
    return given() if isinstance(given, BeatLazyFunc) else given


def _evaluate_entry_args(entry_args: Sequence[Any] | None) -> list[Any]:
    return [_value(each) for each in entry_args or ()]


def _evaluate_entry_kwargs(entry_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _value(each) for name, each in (entry_kwargs or {}).items()}


@total_ordering
class ScheduleEntry:
    """A task, when it runs, and when it last ran. Equal to another one with the same settings."""

    name: str | None = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: Any = None
    total_run_count = 0

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Any = None,
        options: Any = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.app, self.name, self.task = app, name, task
        self.args, self.kwargs, self.options = args, kwargs or {}, options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        """Return now, as its schedule has it."""
        return self.schedule.now() if self.schedule else self.app.now()

    _default_now = default_now

    def _next_instance(self, last_run_at: datetime | None = None) -> ScheduleEntry:
        """Return what it is after a run."""
        last, count = last_run_at or self.default_now(), self.total_run_count + 1
        return self.__class__(**{**dict(self), "last_run_at": last, "total_run_count": count})

    __next__ = next = _next_instance

    def __reduce__(self) -> Any:
        return self.__class__, (
            self.name, self.task, self.last_run_at, self.total_run_count, self.schedule, self.args,
            self.kwargs, self.options,
        )  # fmt: skip

    def update(self, other: ScheduleEntry) -> None:
        """Take over the settings of another one; when it last ran stays."""
        self.__dict__.update({name: getattr(other, name) for name in _EDITABLE})

    def is_due(self) -> tuple[bool, Any]:
        """Return (whether it is to run now, the seconds after which to ask again)."""
        return self.schedule.is_due(self.last_run_at)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __repr__(self) -> str:
        call = reprcall(self.task, self.args or (), self.kwargs or {})
        return f"<{type(self).__name__}: {self.name} {call} {self.schedule}"

    def __lt__(self, other: object) -> bool:
        # Only asked of two that are due at the same time: any order will do.
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def editable_fields_equal(self, other: ScheduleEntry) -> bool:
        """Say whether the settings are the same."""
        return all(getattr(self, name) == getattr(other, name) for name in _EDITABLE)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScheduleEntry):
            return NotImplemented
        return self.editable_fields_equal(other)

    __hash__ = None  # type: ignore[assignment]
