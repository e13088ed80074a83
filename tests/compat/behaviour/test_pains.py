"""What hurts users of Celery, one test each: with Celery 5.7.0 they fail, with fsdf they pass."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from helpers import until


def test_a_task_that_runs_or_waits_longer_than_the_visibility_timeout_runs_once(world):
    world.write("""
        app.conf.broker_transport_options = {  # it looks every second, not every 100
            "visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
        }
        app.conf.task_acks_late = True

        @app.task
        def long():
            note("long")
            time.sleep(6)  # nothing tells that it is not run again: three times as long

        @app.task
        def late():
            note("late")
    """)
    world.worker()
    world.ask("""
        sent = late.apply_async(countdown=6), long.delay()
        said = [each.get(timeout=60) for each in sent]
    """)
    assert sorted(world.notes()) == ["late", "long"]


def test_a_coroutine_function_is_awaited(world):
    world.write("""
        import asyncio

        @app.task
        async def double(x):
            await asyncio.sleep(0)
            return 2 * x
    """)
    world.worker()
    assert world.ask("said = double.delay(4).get(timeout=20)") == 8


def test_a_task_that_is_revoked_before_any_worker_is_up_does_not_run(world):
    world.write("""
        @app.task
        def run():
            note("ran")
    """)
    world.ask("""
        sent = run.delay()
        sent.revoke()
        id, said = sent.id, None
        open("id", "w").write(id)
    """)
    world.worker()
    id = (world.folder / "id").read_text()
    state = world.ask(f"""
        after = run.delay().get(timeout=20)
        result = app.AsyncResult({id!r})
        result.get(timeout=20, propagate=False)
        said = result.state
    """)
    assert (state, world.notes()) == ("REVOKED", ["ran"])


def test_limits_hold_in_threads(world):
    world.write("""
        from celery.exceptions import SoftTimeLimitExceeded

        @app.task(soft_time_limit=0.5)
        def soft():
            try:
                for _ in range(300):
                    time.sleep(0.01)
            except SoftTimeLimitExceeded:
                return "told"
            return "ran on"

        @app.task(time_limit=0.5)
        def hard():
            for _ in range(300):
                time.sleep(0.01)
    """)
    world.worker()
    said = world.ask("""
        one, two = soft.delay(), hard.delay()
        said = one.get(timeout=20), repr(two.get(timeout=20, propagate=False)), two.state
    """)
    assert said == ["told", "TimeLimitExceeded(0.5)", "FAILURE"]


def test_a_broker_that_is_down_is_told_in_time(world):
    world.url = "redis://127.0.0.1:1/0"
    world.write("""
        @app.task
        def run():
            pass
    """)
    name, passed = world.ask("""
        begun = time.monotonic()
        try:
            run.delay()
        except Exception as error:
            said = type(error).__name__, time.monotonic() - begun
    """)
    assert name == "OperationalError"
    assert passed < 4 + 2  # broker_connection_timeout, and a slow machine


def test_a_late_task_runs_again_when_its_child_was_killed(world):
    world.write("""
        @app.task(acks_late=True)
        def run():
            note(os.getpid())
            while len(open(HERE + "/notes").readlines()) < 2:
                time.sleep(0.01)
            return "again"
    """)
    world.worker("-P", "prefork", "-c", "1")
    world.ask("said = open('id', 'w').write(run.delay().id)")
    until(lambda: len(world.notes()) == 1)
    os.kill(int(world.notes()[0]), signal.SIGKILL)
    id = (world.folder / "id").read_text()
    assert world.ask(f"said = app.AsyncResult({id!r}).get(timeout=20)") == "again"


def test_what_waits_for_its_time_takes_no_memory_of_the_worker(world):
    world.write("""
        @app.task
        def run(text=""):
            pass
    """)
    worker = world.worker()
    world.ask("said = run.delay().get(timeout=20)")
    before = _memory(worker.pid)
    world.ask("""
        for n in range(5_000):
            run.apply_async((f"{n} of many",), countdown=3600)
        said = run.delay().get(timeout=60)
    """)
    assert _memory(worker.pid) - before < 10_000_000


def _memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
