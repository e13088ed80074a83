"""When periodic tasks run."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from fsdf_compat.schedules import ParseException, crontab, crontab_parser, maybe_schedule, schedule

UTC = timezone.utc
NEW_YORK = ZoneInfo("America/New_York")


def app(zone=UTC, deadline=None):
    conf = SimpleNamespace(enable_utc=True, beat_cron_starting_deadline=deadline)
    return SimpleNamespace(timezone=zone, conf=conf)


def following(cron, last, count=1):
    """Return the next `count` runs after `last`, on the clock of its zone."""
    runs = []
    for _ in range(count):
        cron.nowfun = lambda now=last: now
        last = (last.astimezone(UTC) + cron.remaining_estimate(last)).astimezone(last.tzinfo)
        runs.append(last)
    return runs


@pytest.mark.parametrize(
    ("field", "size", "first", "numbers"),
    [
        ("*", 7, 0, set(range(7))),
        ("*/15", 60, 0, {0, 15, 30, 45}),
        ("1,2,5-7", 60, 0, {1, 2, 5, 6, 7}),
        ("10-20/5", 60, 0, {10, 15, 20}),
        ("22-2", 24, 0, {22, 23, 0, 1, 2}),
        ("mon-fri", 7, 0, {1, 2, 3, 4, 5}),
        ("sat,sunday", 7, 0, {6, 0}),
        ("jan, Dec", 12, 1, {1, 12}),
        ("*/2", 31, 1, set(range(1, 32, 2))),
    ],
)
def test_field_of_a_crontab_is_a_set_of_numbers(field, size, first, numbers):
    assert crontab_parser(size, first).parse(field) == numbers


@pytest.mark.parametrize("field", ["", "1,,2", "*/", "5-7/", "-20"])
def test_field_with_a_part_missing_is_refused(field):
    with pytest.raises(ParseException):
        crontab_parser(60).parse(field)


@pytest.mark.parametrize("field", ["60", "noday", "0-61", "*/x"])
def test_field_out_of_range_is_refused(field):
    with pytest.raises(ValueError):
        crontab_parser(60).parse(field)


def test_date_that_never_comes_is_refused_at_once():
    with pytest.raises(ValueError, match="never occurs"):
        crontab(day_of_month=31, month_of_year="4,6")


def test_leap_day_on_a_monday_is_found_across_a_century():
    cron = crontab(0, 0, "mon", 29, 2, app=app())
    assert following(cron, datetime(2096, 2, 29, tzinfo=UTC)) == [datetime(2112, 2, 29, tzinfo=UTC)]


def test_minute_that_the_clocks_leave_out_is_left_out():
    cron = crontab(30, "1,2,4", app=app(NEW_YORK))
    before = datetime(2026, 3, 8, 0, 0, tzinfo=NEW_YORK)
    assert [f"{run:%d %H:%M}" for run in following(cron, before, 3)] == [
        "08 01:30", "08 04:30", "09 01:30",
    ]  # fmt: skip


def test_minute_that_comes_twice_is_run_once():
    cron = crontab(30, 1, app=app(NEW_YORK))
    before = datetime(2026, 11, 1, 0, 0, tzinfo=NEW_YORK)
    runs = following(cron, before, 2)
    assert [f"{run:%d %H:%M %z}" for run in runs] == ["01 01:30 -0400", "02 01:30 -0500"]


def test_interval_is_of_time_that_passes_also_when_the_clocks_change():
    last = datetime(2026, 3, 8, 1, 59, 55, tzinfo=NEW_YORK)
    now = last.astimezone(UTC) + timedelta(seconds=7)
    every = schedule(10, nowfun=lambda: now, app=app(NEW_YORK))
    assert every.is_due(last) == (False, 3)


def test_what_was_missed_runs_once_and_not_after_its_deadline():
    now = datetime(2026, 5, 5, 10, 0, tzinfo=UTC)
    for deadline, due in ((None, True), (7200, True), (60, False)):
        cron = crontab(0, "8,9", nowfun=lambda: now, app=app(deadline=deadline))
        assert cron.is_due(now - timedelta(days=2)) == (due, 22 * 3600)


def test_crontab_survives_its_file():
    cron = crontab("*/5", "1-3", day_of_week="mon", app=None)
    assert pickle.loads(pickle.dumps(cron)) == cron
    assert repr(cron) == "<crontab: */5 1-3 * * mon (m/h/dM/MY/d)>"
    assert cron == crontab.from_string("*/5 1-3 * * mon")


def test_seconds_and_timedeltas_are_schedules():
    assert maybe_schedule(30) == schedule(30) == timedelta(seconds=30)
    assert repr(maybe_schedule(timedelta(minutes=2))) == "<freq: 2.00 minutes>"
