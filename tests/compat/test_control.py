"""What workers answer when they are asked, and do when they are told."""

from __future__ import annotations

import datetime
import os
import time

import psutil
import pytest
from helpers import BOUND, until

TASKS = """
@app.task(bind=True)
def held(self):
    note("started")
    wait_for_release()
    return self.request.hostname

@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.request.delivery_info["priority"]

@app.task
def add(x, y):
    return x + y
"""
LONG = """
import asyncio

@app.task
{define} long():
    note("started")
    while not (HERE / "go").exists():  # a fifo would hold up all greenlets
        {wait}(0.01)
"""
NODE = "me@here"


@pytest.fixture
def asked(redis_project):
    """A project and its worker with two children, and what asks that one."""
    proj = redis_project.write(TASKS)
    worker = redis_project.worker("-P", "prefork", "-c", "2", "-n", NODE)
    return (
        proj,
        worker,
        lambda name, *args: getattr(proj.app.control.inspect([NODE], timeout=BOUND, limit=1), name)(
            *args
        )[NODE],
    )


def test_a_worker_says_what_it_does(asked, redis_project):
    proj, worker, ask = asked
    assert ask("ping") == {"ok": "pong"}
    sent = proj.held.delay()
    redis_project.noted("started")
    [active] = ask("active")
    assert (active["id"], active["name"], active["args"]) == (sent.id, "proj.held", [])
    assert ask("query_task", sent.id) == {sent.id: ["active", active]}
    assert ask("reserved") == ask("scheduled") == ask("revoked") == []
    assert "proj.add" in ask("registered")
    assert [queue["name"] for queue in ask("active_queues")] == ["celery"]
    assert ask("conf")["broker_url"].startswith("redis://")
    stats = ask("stats")
    assert (stats["pid"], stats["pool"]["max-concurrency"]) == (worker.process.pid, 2)
    assert stats["total"] == {"proj.held": 1}
    children = {child.pid for child in psutil.Process(worker.process.pid).children(recursive=True)}
    assert active["worker_pid"] in stats["pool"]["processes"]
    assert children.issuperset(stats["pool"]["processes"])
    redis_project.release()
    assert sent.get(timeout=BOUND) == NODE


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork", "gevent", "eventlet", "asyncio"])
def test_a_run_that_is_active_tells_when_it_began(redis_project, pool):
    if pool in ("gevent", "eventlet"):
        pytest.importorskip(pool)
    how = {"define": "def", "wait": "time.sleep"}
    if pool == "asyncio":
        how = {"define": "async def", "wait": "await asyncio.sleep"}
    proj = redis_project.write(LONG.format(**how))
    redis_project.worker("-P", pool, "-c", "1", "-n", NODE)
    inspect = proj.app.control.inspect([NODE], timeout=BOUND, limit=1)
    before, sent = time.time(), proj.long.delay()
    redis_project.noted("started")
    after = time.time()
    [active] = inspect.active()[NODE]
    assert before <= active["time_start"] <= after
    assert inspect.query_task(sent.id)[NODE] == {sent.id: ["active", active]}
    (redis_project.folder / "go").touch()
    sent.get(timeout=BOUND)


def test_priorities_are_those_of_the_call_between_the_steps_of_redis_too(asked):
    proj, _, _ = asked
    assert proj.again.apply_async(priority=7).get(timeout=BOUND) == 7


def test_auto_is_as_many_slots_as_there_are_processors(redis_project):
    redis_project.write(TASKS)
    worker = redis_project.worker("-P", "prefork", "-c", "auto")
    worker.says("worker_concurrency='auto' resolved to ")
    worker = redis_project.worker("-P", "threads", "-c", "auto")
    worker.says(f"pool=thread has all {len(os.sched_getaffinity(0))} processors")


def test_what_a_worker_is_told_holds_at_once(asked):
    proj, worker, ask = asked
    control = proj.app.control
    told = {"destination": [NODE], "reply": True, "timeout": BOUND, "limit": 1}
    assert control.add_consumer("more", **told) == [{NODE: {"ok": "add consumer more"}}]
    assert proj.add.apply_async((1, 2), queue="more").get(timeout=BOUND) == 3
    [answer] = control.cancel_consumer("more", **told)
    assert answer == {NODE: {"ok": "no longer consuming from more"}}
    assert [queue["name"] for queue in ask("active_queues")] == ["celery"]
    [answer] = control.rate_limit("proj.add", "100/s", **told)
    assert answer == {NODE: {"ok": "new rate limit set successfully"}}
    [answer] = control.time_limit("proj.add", soft=5, hard=10, **told)
    assert answer == {NODE: {"ok": "time limits set successfully"}}
    control.shutdown([NODE])
    assert worker.ends() == 0


def test_a_run_is_terminated_and_its_caller_learns_it(asked, redis_project):
    proj, _, _ = asked
    sent = proj.held.delay()
    redis_project.noted("started")
    sent.revoke(terminate=True)
    until(lambda: sent.state == "REVOKED")
    assert proj.add.delay(1, 2).get(timeout=BOUND) == 3


def test_what_waits_for_its_time_is_told_of_as_scheduled(redis_project):
    proj = redis_project.write("""
    @app.task
    def add(x, y=2):
        return x + y
    """)
    redis_project.worker()
    eta = datetime.datetime(2100, 1, 1, 12, 30, 15, 250, tzinfo=datetime.timezone.utc)
    first = proj.add.apply_async((1,), {"y": 3}, countdown=3600)
    last = proj.add.apply_async((4,), eta=eta)
    proj.app.send_task("of.somebody.else", countdown=60)
    [told] = proj.app.control.inspect(timeout=BOUND, limit=1).scheduled().values()
    assert [each["request"]["id"] for each in told] == [first.id, last.id]
    assert told[0]["request"]["kwargs"] == {"y": 3}
    assert told[1]["eta"] == eta.isoformat()
    asked = told[1]["request"]
    assert (asked["name"], asked["args"], asked["time_start"]) == ("proj.add", [4], None)
    assert (asked["acknowledged"], asked["worker_pid"]) == (False, None)
