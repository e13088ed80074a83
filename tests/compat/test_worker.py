"""The worker command: pools, queues, signals, crashes and what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import psutil
import pytest
import redis
from helpers import BOUND, insist, until

from fsdf_compat.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError

STUCK = """
@app.task(acks_late={late})
def stuck():
    note("started")
    if (HERE / "notes").read_text().count("started") == 1:
        threading.Event().wait()
    return "done"

@app.task
def other():
    return 1
"""
GATED = """
@app.task(acks_late=True)
def gated():
    note("started")
    wait_for_release()
    note("ended")
    return "done"

@app.task(acks_late=True)
def after():
    return "after"
"""


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork", "gevent", "eventlet"])
def test_every_pool_runs_tasks(redis_project, pool):
    if pool in ("gevent", "eventlet"):
        pytest.importorskip(pool)
    proj = redis_project.write("""
    @app.task(bind=True)
    def add(self, x, y):
        if not self.request.retries:
            self.retry(countdown=0)
        return [x + y, self.request.hostname]

    @app.task
    def fail():
        raise KeyError("no")
    """)
    worker = redis_project.worker("-P", pool, "-c", "2", "-n", "me@here")
    sent = [proj.add.delay(n, 1) for n in range(20)]
    assert [each.get(timeout=BOUND) for each in sent] == [[n + 1, "me@here"] for n in range(20)]
    with pytest.raises(KeyError):
        proj.fail.delay().get(timeout=BOUND)
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="there is no zygote elsewhere")
@pytest.mark.parametrize("method", [None, "spawn"])
def test_prefork_forks_unless_another_start_method_is_set(redis_project, method):
    proj = redis_project.write(f"""
    app.conf.worker_pool_start_method = {method!r}

    @app.task
    def add(x, y):
        return x + y
    """)
    worker = redis_project.worker("-P", "prefork", "-c", "1")
    assert proj.add.delay(1, 2).get(timeout=BOUND) == 3
    names = {child.name() for child in psutil.Process(worker.process.pid).children()}
    assert ("fsdf-child" in names) == ("fsdf-zygote" in names) == (method is None)
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


def test_command_line_counts_in_child_processes_too(redis_project):
    proj = redis_project.write("""
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    app.conf.result_backend = None

    @app.task
    def outer(x):
        return app.send_task("inner", (x,)).id
    """)
    (redis_project.folder / "more.py").write_text(
        "from proj import app\n@app.task(name='inner')\ndef inner(x): return x + 1\n"
    )
    url = redis_project.url
    redis_project.worker(
        "-P", "prefork", "-c", "1", "-b", url, "--result-backend", url, "-I", "more"
    )
    proj.app.conf.update(broker_url=url, result_backend=url)
    inner = proj.outer.delay(1).get(timeout=BOUND)
    assert proj.app.AsyncResult(inner).get(timeout=BOUND) == 2


def test_child_processes_find_an_app_that_is_named_as_an_attribute(redis_project):
    proj = redis_project.write("""
    @app.task
    def add(x, y):
        return x + y
    """)
    redis_project.worker("-P", "prefork", "-c", "1", app="proj.app")
    assert proj.add.delay(1, 2).get(timeout=BOUND) == 3


def test_time_limit_ends_a_run(redis_project):
    proj = redis_project.write("""
    @app.task(time_limit=0.2)
    def forever():
        sum(range(10**12))
    """)
    redis_project.worker("-P", "prefork", "-c", "1")
    with pytest.raises(TimeLimitExceeded):
        proj.forever.delay().get(timeout=BOUND)


FOREVER = """
def wait_for_ever():
    while True:
        time.sleep(0.01)  # an interrupt meets a thread between two steps only

@app.task(bind=True{options})
def forever(self):
    try:
        wait_for_ever()
    except SoftTimeLimitExceeded:
        if self.request.headers:
            wait_for_ever()
        return [soft for _, soft in [self.request.timelimit]]

@app.task(bind=True)
def raises(self):
    wait_for_ever()
"""


@pytest.mark.parametrize("pool", ["threads", "prefork", "solo", "gevent", "eventlet"])
def test_soft_limit_may_be_caught_and_comes_from_task_call_setting_or_command(redis_project, pool):
    if pool in ("gevent", "eventlet"):
        pytest.importorskip(pool)
    proj = redis_project.write(FOREVER.format(options=", soft_time_limit=0.3"))
    redis_project.worker("-P", pool, "-c", "2", "--soft-time-limit", "0.4")
    assert proj.forever.delay().get(timeout=BOUND) == [0.3]
    assert proj.forever.apply_async(soft_time_limit=0.2).get(timeout=BOUND) == [0.2]
    with pytest.raises(SoftTimeLimitExceeded):
        proj.raises.delay().get(timeout=BOUND)
    hard = proj.forever.apply_async(soft_time_limit=0.1, time_limit=0.3, headers={"stay": True})
    with pytest.raises(TimeLimitExceeded):
        hard.get(timeout=BOUND)


def test_soft_limit_of_the_settings(project):
    proj = project.write("app.conf.task_soft_time_limit = 0.2" + FOREVER.format(options=""))
    project.worker()
    assert proj.forever.delay().get(timeout=BOUND) == [0.2]


def test_killed_workers_message_returns_with_acks_late(project):
    proj = project.write(STUCK.format(late=True))
    sent = proj.stuck.delay()
    worker = project.worker(FSDF_LEASE="1")
    project.noted("started")
    worker.kill()
    project.worker(FSDF_LEASE="1")
    assert sent.get(timeout=BOUND) == "done"
    assert project.notes() == ["started", "started"]


def test_killed_workers_message_is_gone_with_early_acks(project):
    proj = project.write(STUCK.format(late=False))
    sent = proj.stuck.delay()
    worker = project.worker(FSDF_LEASE="1")
    project.noted("started")
    worker.kill()
    assert sum(project.size(proj.app)) == 0
    project.worker(FSDF_LEASE="1")
    assert proj.other.delay().get(timeout=BOUND) == 1
    with pytest.raises(WorkerLostError):
        sent.get(timeout=BOUND)
    assert project.notes() == ["started"]
    assert sent.state == "FAILURE"


def test_sigterm_lets_what_runs_come_to_its_end(project):
    proj = project.write(GATED)
    running = proj.gated.delay()
    worker = project.worker("-c", "1")
    project.noted("started")
    waiting = proj.after.delay()
    worker.signal(signal.SIGTERM)
    worker.says("Warm shutdown")
    project.release()
    assert worker.ends() == 0
    assert running.get(timeout=BOUND) == "done"
    assert project.notes() == ["started", "ended"]
    # It may have been handed out before the signal; it is done or waits, and is not held.
    kept = {"PENDING": 1, "SUCCESS": 0}[waiting.state]
    assert project.size(proj.app) == (kept, 0, 0, 0)


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)])
def test_cold_shutdown_gives_back_what_runs(redis_project, signals):
    proj = redis_project.write("""
    @app.task(acks_late=True)
    def patient():
        note("started")
        threading.Event().wait()
    """)
    proj.patient.delay()
    worker = redis_project.worker()
    redis_project.noted("started")
    for number in signals[:-1]:
        worker.signal(number)
        worker.says("Warm shutdown")
    insist(worker.process, signals[-1])
    worker.says("Cold shutdown")
    assert worker.ends() == 128 + signals[-1]


def test_worker_serves_the_queues_it_is_told(redis_project):
    proj = redis_project.write("""
    @app.task
    def here():
        return "default"

    @app.task(queue="b")
    def there():
        return "b"
    """)
    redis_project.worker("-Q", "a,b")
    unserved = proj.here.delay()
    assert proj.there.delay().get(timeout=BOUND) == "b"
    assert proj.here.apply_async(queue="a").get(timeout=BOUND) == "default"
    assert unserved.state == "PENDING"
    assert redis_project.size(proj.app) == (1, 0, 0, 0)


def test_worker_reports_once_what_has_no_effect(redis_project):
    redis_project.write("""
    app.conf.worker_prefetch_multiplier = 1
    app.conf.task_ack_late = True
    app.conf.my_own_setting = 1

    @app.task(rate_limit="10/m")
    def one():
        pass
    """)
    worker = redis_project.worker("-E", "--prefetch-multiplier=1", "--without-gossip", "-Ofair")
    text = "".join(worker.said)
    assert "not yet used in this version: --task-events, --prefetch-multiplier" in text
    assert "not yet used in this version: worker_prefetch_multiplier" in text
    assert "'task_ack_late'; did you mean 'task_acks_late'" in text
    assert "task proj.one: not yet used: rate_limit" in text
    assert "my_own_setting" not in text
    assert "celery.flat" in text


def test_failure_is_logged_with_its_traceback(redis_project):
    proj = redis_project.write("""
    @app.task
    def fail():
        raise KeyError("broken")
    """)
    worker = redis_project.worker()
    sent = proj.fail.delay()
    worker.says(f"Task proj.fail[{sent.id}] raised KeyError: 'broken'")
    worker.says("in fail")


def test_message_is_flat_json_on_a_queue_of_its_own(redis_project):
    proj = redis_project.write("""
    @app.task(ignore_result=True)
    def add(x, y=2):
        pass
    """)
    sent = proj.add.delay(1)
    proj.app.send_task("other", (1, 2), {"z": 3}, task_id="i", ignore_result=None, expires=5)
    with redis.Redis.from_url(redis_project.url) as client:
        named, unnamed = map(json.loads, client.lrange("celery.flat", 0, -1)[::-1])
        assert client.llen("celery") == 0
    extra = named.pop("extra")
    assert named == {"x": 1}
    assert extra.pop("publish_time") > 0
    assert extra == {"task_id": sent.id, "task": "proj.add"}
    assert unnamed["z"] == 3
    assert (unnamed["extra"]["task"], unnamed["extra"]["args"]) == ("other", [1, 2])
    assert unnamed["extra"]["expires"] > 0


def test_foreign_message_without_id_is_run(redis_project):
    proj = redis_project.write("""
    @app.task
    def mark(text):
        note(text)
    """)
    redis_project.worker()
    with redis.Redis.from_url(redis_project.url) as client:
        client.lpush("celery.flat", '{"text": "from C", "extra": {"task": "proj.mark"}}')
    redis_project.noted("from C")
    until(lambda: sum(redis_project.size(proj.app)) == 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-A", "nowhere", "worker"], "no module 'nowhere'"),
        (["-A", "json", "worker"], "has no Celery app"),
        (["worker"], "give -A module"),
        (["-A", "proj", "worker", "-P", "treads"], "unknown pool 'treads'"),
        (["-A", "proj", "worker", "-l", "loud"], "invalid choice: 'LOUD'"),
        (["-A", "proj", "beat"], "beat is not in this version"),
    ],
)
def test_command_says_what_is_wrong(redis_project, arguments, says):
    redis_project.write("@app.task\ndef one(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "fsdf_compat.bin.celery", *arguments],
        cwd=redis_project.folder,
        env={"PYTHONPATH": redis_project.root},
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_worker_ends_when_the_server_refuses_it(own_redis, make_project, pool):
    server = own_redis(password="secret")
    url = server.url.replace("secret", "wrong")
    project = make_project(url, None)
    project.write("@app.task\ndef one(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "fsdf_compat.bin.celery", "-A", "proj", "worker", "-P", pool],
        cwd=project.folder,
        env={"PYTHONPATH": project.root},
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 2
    assert "password" in done.stderr
    assert "wrong" not in done.stderr


def test_worker_waits_for_an_absent_server_and_survives_its_restart(own_redis, make_project):
    server = own_redis(aof=True)
    project = make_project(server.url, server.url)
    proj = project.write("""
    @app.task
    def add(x, y):
        return x + y
    """)
    server.stop()
    project.worker()
    server.start()
    assert proj.add.delay(1, 2).get(timeout=BOUND) == 3
    server.kill()
    server.start()
    said = project.elsewhere("said = app.send_task('proj.add', (3, 4)).get(timeout=20)")
    assert said == 7
