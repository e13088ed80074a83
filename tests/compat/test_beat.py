"""Periodic tasks: what is sent, when, by how many beats, and what survives in the file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from helpers import BOUND, until

from fsdf_compat import Celery, signals
from fsdf_compat.beat import PersistentScheduler, ScheduleEntry, Scheduler, Service
from fsdf_compat.schedules import crontab, schedule

ROOT = Path(__file__).parent.parent.parent
UTC = timezone.utc


@pytest.fixture
def app(tmp_path):
    url = f"sqlite:///{tmp_path}/queues.sqlite3"
    app = Celery("beating", broker=url, backend="disabled", set_as_current=False)
    app.conf.beat_schedule_filename = str(tmp_path / "schedule")

    @app.task(name="beating.tick", shared=False)
    def tick(*args, **kwargs):
        return args

    yield app
    app.close()


class Sending(Scheduler):
    """Notes what it sends."""

    def __init__(self, *args, **kwargs):
        self.sent = []
        super().__init__(*args, **kwargs)

    def apply_async(self, entry, producer=None, advance=True, **kwargs):
        self.sent.append(entry.name)
        return super().apply_async(entry, producer, advance, **kwargs)


def due(app, seconds=60, **fields):
    """Return the settings of an entry that is due."""
    last = datetime.now(UTC) - timedelta(seconds=2 * seconds)
    fields = {"task": "beating.tick", "schedule": seconds, **fields}
    return ScheduleEntry(name="each", last_run_at=last, app=app, **fields)


def waiting(app, queue="celery"):
    return app.engine.remote(f"{queue}.flat", **app.engine_options()).size().waiting


def test_what_is_due_is_sent_with_its_arguments_and_options(app):
    seen = []
    app.conf.beat_schedule = {
        "each": {
            "task": "beating.tick",
            "schedule": 60,
            "args": (1,),
            "options": {"queue": "slow"},
        },
    }

    def sending(sender, body, headers, **_):
        seen.append((sender, body[0], headers["celery_beat_task"]))

    signals.before_task_publish.connect(sending)
    try:
        scheduler = Sending(app)
        scheduler.schedule["each"].last_run_at -= timedelta(seconds=60)
        assert scheduler.tick() == 0
        assert scheduler.tick() > 50
    finally:
        signals.before_task_publish.disconnect(sending)
    assert seen == [("beating.tick", [1], True)] or seen == [("beating.tick", (1,), True)]
    assert waiting(app, "slow") == 1


def test_two_beats_on_one_broker_send_once(app):
    """Whoever puts the mark first; each would have sent it without the other."""
    both = [Sending(app), Sending(app)]
    for beat in both:
        beat.schedule["each"] = due(app)
        beat.tick()
    assert [beat.sent for beat in both] == [["each"], []]
    assert waiting(app) == 1
    assert all(beat.schedule["each"].total_run_count == 1 for beat in both)


def test_beat_whose_twin_has_died_goes_on(app):
    first, second = Sending(app), Sending(app)
    first.schedule["each"] = due(app, 0.2)
    first.tick()
    second.schedule["each"] = due(app, 0.2)

    def sent():
        second.tick()
        return second.sent

    until(sent)
    assert waiting(app) >= 2


class Unreachable(Sending):
    """Its broker is away for the first attempt."""

    away = True

    def apply_async(self, entry, producer=None, advance=True, **kwargs):
        if self.away:
            from kombu.exceptions import OperationalError

            from fsdf_compat.beat import SchedulingError

            self.away = False
            raise SchedulingError("away") from OperationalError("away")
        return super().apply_async(entry, producer, advance, **kwargs)


def test_what_could_not_be_sent_stays_due(app):
    scheduler = Unreachable(app)
    scheduler.schedule["each"] = due(app)
    assert 0 < scheduler.tick() <= 2.0
    assert scheduler.schedule["each"].total_run_count == 0
    scheduler._heap = None  # as if that time had passed
    scheduler.tick()
    assert scheduler.sent == ["each"]


def test_entry_that_raises_keeps_no_other_from_its_turn(app):
    class Broken(schedule):
        def is_due(self, last_run_at):
            raise RuntimeError("no idea")

    scheduler = Sending(app)
    scheduler.add(name="broken", task="beating.tick", schedule=Broken(1, app=app))
    scheduler.schedule["each"] = due(app)
    scheduler.tick()
    assert scheduler.sent == ["each"]


def test_last_runs_survive_a_restart_and_missed_ones_are_made_up_for(app):
    app.conf.beat_schedule = {"noon": {"task": "beating.tick", "schedule": crontab(0, 12)}}
    name = app.conf.beat_schedule_filename
    before = PersistentScheduler(app, schedule_filename=name)
    entry = before.schedule["noon"]
    entry.last_run_at = datetime.now(UTC) - timedelta(days=3)
    before.close()
    after = PersistentScheduler(app, schedule_filename=name)
    try:
        assert after.schedule["noon"].last_run_at == entry.last_run_at
        assert after.tick() == 0
        assert after.tick() > 0
        assert after.schedule["noon"].total_run_count == 1
    finally:
        after.close()
    assert waiting(app) == 1


def test_damaged_file_is_begun_anew(app, caplog):
    name = app.conf.beat_schedule_filename
    Path(name).write_bytes(b"\x00not a schedule")
    app.conf.beat_schedule = {"each": {"task": "beating.tick", "schedule": 60}}
    scheduler = PersistentScheduler(app, schedule_filename=name)
    assert "each" in scheduler.schedule
    scheduler.close()
    assert "Removing corrupted schedule file" in caplog.text


def test_service_ends_at_once_when_it_is_stopped(app):
    app.conf.beat_schedule = {"each": {"task": "beating.tick", "schedule": 3600}}
    service = Service(app)
    thread = threading.Thread(target=service.start)
    thread.start()
    until(lambda: service._last_tick is not None)
    service.stop(wait=True)
    thread.join(BOUND)
    assert not thread.is_alive()


def test_command_sends_and_stores_at_sigterm(tmp_path):
    (tmp_path / "proj.py").write_text(
        textwrap.dedent(f"""
        from celery import Celery

        app = Celery("proj", broker="sqlite:///{tmp_path}/queues.sqlite3")
        app.conf.beat_schedule = {{"each": {{"task": "proj.tick", "schedule": 0.05}}}}

        @app.task
        def tick():
            pass
        """)
    )
    command = [
        sys.executable,
        "-m",
        "fsdf_engine.cli",
        "celery",
        "-A",
        "proj",
        "beat",
        "-l",
        "INFO",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = iter(process.stderr.readline, "")
        assert any("Scheduler: Sending due task each (proj.tick)" in line for line in lines)
        process.terminate()
        process.communicate(timeout=BOUND)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert list(tmp_path.glob("celerybeat-schedule*"))
