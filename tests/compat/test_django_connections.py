"""When Django's fixup has a worker's connections closed, and when it knows that there are none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = """
import os, sys, threading, types
settings = types.ModuleType("short_settings")
settings.SECRET_KEY = "x"
settings.DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}}
sys.modules["short_settings"] = settings
os.environ["DJANGO_SETTINGS_MODULE"] = "short_settings"

from fsdf_compat import Celery
from fsdf_compat.app._trace.tracer import Tracer
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.fixups.django import DjangoWorkerFixup


long, steps = [], Tracer.steps
def noted(self, it, request):
    long.append(self.name)
    return steps(self, it, request)
Tracer.steps = noted

app = Celery("short", broker="memory://", set_as_current=False)
app.conf.update(worker_hijack_root_logger=False, task_ignore_result=True)
done = threading.Semaphore(0)

@app.task(name="idle")
def idle():
    from django.db import connection
    states.append(connection.connection is not None)

@app.task(name="query")
def query():
    from django.db import connection
    connection.cursor().execute("SELECT 1")
    states.append(connection.connection is not None)

@app.task(name="last")
def last():
    from django.db import connection
    states.append(connection.connection is not None)
    done.release()

states = []
def work(*tasks):
    with start_worker(app, pool="solo", perform_ping_check=False):
        for task in (*tasks, last):
            task.delay()
        assert done.acquire(timeout=60)
"""


@pytest.fixture
def django(tmp_path):
    """Run code in a project of Django with a worker; it must not fail."""

    def run(code):
        said = subprocess.run(
            [sys.executable, "-c", PROJECT + textwrap.dedent(code), str(tmp_path / "db")],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr

    return run


def test_runs_without_connections_go_the_short_way(django):
    django("""
    work(idle, idle)
    assert (states, long) == ([False] * 3, []), (states, long)
    """)


def test_a_fixup_that_has_nothing_to_close_is_not_called(django):
    django("""
    called = []
    for name in ("on_task_prerun", "on_task_postrun"):
        def noted(self, sender, name=name, **kwargs):
            called.append(name)
        setattr(DjangoWorkerFixup, name, noted)
    work(idle, idle)
    assert (states, called) == ([False] * 3, []), (states, called)
    """)


def test_a_connection_of_a_run_is_closed_at_its_end(django):
    django("""
    work(idle, query, idle, query)
    assert states == [False, True, False, True, False], states
    assert long == [], long  # the end of the run is told also where it began the short way
    """)


def test_a_database_that_does_not_tell_of_connections_is_closed_after_each_run(django):
    django("""
    from django.db.backends.sqlite3.base import DatabaseWrapper
    class Silent:
        def connect(self):
            self.connection = self.get_new_connection(self.get_connection_params())
            self.init_connection_state()
            self.set_autocommit(True)
    DatabaseWrapper.connect = Silent.connect
    work(query, idle)
    assert states == [True, False, False], states
    assert long == [], long
    """)


def test_a_cache_with_connections_is_closed_after_each_run(django):
    django("""
    from django.core.cache.backends.locmem import LocMemCache
    closed = []
    class Connected(LocMemCache):
        def close(self, **kwargs):
            closed.append(1)
    sys.modules["short_cache"] = types.ModuleType("short_cache")
    sys.modules["short_cache"].Connected = Connected
    settings.CACHES = {"default": {"BACKEND": "short_cache.Connected"}}
    @app.task(name="caches")
    def caches():
        from django.core.cache import cache
        cache.set("a", 1)
    work(caches)
    assert closed and long == [], (closed, long)
    """)


def test_a_fixup_of_others_is_told_of_every_run(django):
    django("""
    told = []
    class Own(DjangoWorkerFixup):
        def on_task_postrun(self, sender, **kwargs):
            told.append(sender.name)
    (fixup,) = app._fixups
    fixup.worker_fixup = Own(app)
    work(idle)
    assert told == ["idle", "last"], told
    """)
