"""The worker command: pools, queues, signals, crashes and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
import redis
from helpers import BOUND, insist, until

from fsdf_compat.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from fsdf_compat.utils.nodenames import anon_nodename

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
@pytest.mark.parametrize("method", ["fork", "spawn"])
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
    assert ("fsdf-child" in names) == ("fsdf-zygote" in names) == (method == "fork")
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
    before = ("-b", url, "--result-backend", url)
    redis_project.worker("-P", "prefork", "-c", "1", "-I", "more", before=before)
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


def test_killed_workers_message_is_gone_with_early_acks(redis_project):
    project = redis_project  # another backend is told by nobody
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


@pytest.mark.parametrize("signals", [
    (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGQUIT), (signal.SIGQUIT,)
])  # fmt: skip
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
    until(lambda: redis_project.size(proj.app) == (1, 0, 0, 0))


def test_worker_shows_what_it_serves_and_what_has_no_effect(redis_project):
    redis_project.write("""
    app.conf.task_compression = "gzip"
    app.conf.task_ack_late = True
    app.conf.my_own_setting = 1

    @app.task
    def one():
        pass
    """)
    worker = redis_project.worker("-E", "--prefetch-multiplier=1", "--without-gossip", "-Ofair")
    text = "".join(worker.said)
    assert text.count("the setting task_compression has no effect: messages are JSON") == 1
    assert "'task_ack_late'; did you mean 'task_acks_late'" in text
    assert "my_own_setting" not in text
    assert "  . proj.one" in text
    assert ".> celery " in text
    assert ".> concurrency: 4 (thread)" in text


def test_failure_is_logged_with_its_traceback(redis_project):
    proj = redis_project.write("""
    @app.task
    def fail():
        raise KeyError("broken")
    """)
    worker = redis_project.worker()
    sent = proj.fail.delay()
    worker.says(f"Task proj.fail[{sent.id}] raised unexpected: KeyError('broken')")
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
    assert extra.pop("headers") == {"ignore_result": True}
    assert extra.pop("origin") == anon_nodename()
    assert extra == {"task_id": sent.id, "task": "proj.add", "positional": 1}
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
        (["-A", "nowhere", "worker"], "The module nowhere was not found"),
        (["-A", "json", "worker"], "Unable to load celery application"),
        (["-A", "proj", "worker", "-P", "treads"], "'treads' is not one of"),
        (["-A", "proj", "worker", "-l", "loud"], "'LOUD' is not one of"),
        (["-A", "proj", "worker", "-c", "many"], "must be a non-negative integer"),
        (["-A", "proj", "worker", "--autoscale=1,2,3"], "one or two whole numbers"),
        (["-A", "proj", "worker", "--", "prefetch_multiplier"], "Unable to parse extra"),
    ],
)
def test_command_says_what_is_wrong(redis_project, arguments, says):
    redis_project.write("@app.task\ndef one(): pass\n")
    done = command(redis_project, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def command(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "fsdf_engine.cli", "celery", *arguments],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": project.root},
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_worker_ends_when_the_server_refuses_it(own_redis, make_project, pool):
    server = own_redis(password="secret")
    url = server.url.replace("secret", "wrong")
    project = make_project(url, None)
    project.write("@app.task\ndef one(): pass\n")
    done = command(project, "-A", "proj", "worker", "-P", pool)
    assert done.returncode == 1
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
    worker = project.start()
    worker.says("consumer: Cannot connect")
    assert "ready." not in "".join(worker.said)
    server.start()
    worker.says("ready.")
    assert proj.add.delay(1, 2).get(timeout=BOUND) == 3
    server.kill()
    server.start()
    said = project.elsewhere("said = app.send_task('proj.add', (3, 4)).get(timeout=20)")
    assert said == 7


@pytest.mark.parametrize(
    ("options", "runs"),
    [("", 1), ("acks_late=True, reject_on_worker_lost=False", 1), ("acks_late=True", 6)],
)
def test_a_task_that_kills_its_child_fails_at_its_limit(redis_project, options, runs):
    proj = redis_project.write(f"""
    import signal

    @app.task({options})
    def die():
        note("run")
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task
    def add(x, y):
        return x + y
    """)
    worker = redis_project.worker("-P", "prefork", "-c", "1")
    sent = proj.die.delay()
    with pytest.raises(WorkerLostError, match="exited prematurely"):
        sent.get(timeout=BOUND)
    assert redis_project.notes() == ["run"] * runs
    worker.says("Task handler raised error")
    assert proj.add.delay(1, 2).get(timeout=BOUND) == 3


def test_solo_runs_in_the_main_thread_and_ends_at_a_signal(redis_project):
    proj = redis_project.write("""
    @app.task
    def where():
        return threading.current_thread() is threading.main_thread()
    """)
    worker = redis_project.worker("-P", "solo")
    assert proj.where.delay().get(timeout=BOUND) is True
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


def test_steps_of_users_are_started_with_the_worker_and_stopped(redis_project):
    redis_project.write("""
    from fsdf_compat import bootsteps

    class Probe(bootsteps.StartStopStep):
        requires = {"celery.worker.components:Timer"}

        def start(self, worker):
            worker.timer.call_after(0.01, note, (f"timer {type(worker).__name__}",))

        def stop(self, worker):
            note("stopped")

    app.steps["worker"].add(Probe)
    """)
    worker = redis_project.worker()
    until(lambda: redis_project.notes() == ["timer Worker"])
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    assert redis_project.notes() == ["timer Worker", "stopped"]


def test_a_repeated_sigterm_stays_warm(redis_project):
    proj = redis_project.write(GATED)
    sent = proj.gated.delay()
    worker = redis_project.worker("-P", "prefork", "-c", "1")
    redis_project.noted("started")
    worker.signal(signal.SIGTERM)
    worker.says("Warm shutdown")
    for _ in range(3):
        worker.signal(signal.SIGTERM)
    redis_project.release()
    assert (worker.ends(), sent.get(timeout=BOUND)) == (0, "done")
    worker.says("INFO/ForkPoolWorker-")


def test_ctrl_c_is_warm_and_a_failure(redis_project):
    redis_project.write(GATED)
    worker = redis_project.worker()
    worker.signal(signal.SIGINT)
    assert worker.ends() == 1
    worker.says("Hitting Ctrl+C again")


def test_a_worker_that_is_asked_shows_its_threads_and_goes_on(redis_project):
    proj = redis_project.write(GATED)
    worker = redis_project.worker("-P", "prefork", "-c", "1")
    worker.signal(signal.SIGUSR1)
    worker.says("MainThread")
    assert proj.after.delay().get(timeout=BOUND) == "after"


def test_what_has_no_text_when_threads_are_shown_ends_no_worker(redis_project):
    """As a thread that another one is just making."""
    proj = redis_project.write("""
    class Odd:
        def __repr__(self):
            raise AssertionError("not made yet")

    @app.task
    def holds():
        odd, plain = Odd(), "a text of its own"
        note("started")
        with open(HERE / "gate") as gate:
            return gate.read()
    """)
    worker = redis_project.worker()
    sent = proj.holds.delay()
    redis_project.noted("started")
    worker.signal(signal.SIGUSR1)
    worker.says("(cannot be shown: AssertionError)")
    worker.says("'plain': 'a text of its own'")
    redis_project.release()
    assert sent.get(timeout=BOUND) == "go"


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_greenlets_end_warmly_as_other_pools(redis_project, pool):
    pytest.importorskip(pool)
    redis_project.write(GATED)
    worker = redis_project.worker("-P", pool, "-c", "2")
    worker.signal(signal.SIGTERM)
    worker.says("worker: Warm shutdown (MainProcess)")
    assert worker.ends() == 0


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_coroutine_functions_run_at_once_beside_greenlets(redis_project, pool):
    pytest.importorskip(pool)
    proj = redis_project.write("""
    import asyncio
    here = []

    @app.task
    async def meet(n):
        here.append(n)
        while len(here) < 5:
            await asyncio.sleep(0.01)
        return [n, app.current_task.request.args]

    @app.task
    def plain(x):
        return x
    """)
    redis_project.worker("-P", pool, "-c", "10")
    sent = [proj.meet.delay(n) for n in range(5)]
    assert proj.plain.delay(1).get(timeout=BOUND) == 1
    assert [each.get(timeout=BOUND) for each in sent] == [[n, [n]] for n in range(5)]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_sighup_starts_the_worker_anew_when_what_runs_has_ended(redis_project, pool, tmp_path):
    proj = redis_project.write(GATED)
    pidfile = tmp_path / "worker.pid"
    sent = proj.gated.delay()
    worker = redis_project.worker("-P", pool, "-c", "1", "--pidfile", str(pidfile))
    redis_project.noted("started")
    worker.signal(signal.SIGHUP)
    worker.says("Restarting celery worker (")
    redis_project.release()
    assert sent.get(timeout=BOUND) == "done"
    until(lambda: "".join(worker.said).count("ready.") == 2)
    again = proj.gated.delay()
    redis_project.noted("started", "ended", "started")
    redis_project.release()
    assert again.get(timeout=BOUND) == "done"
    assert pidfile.read_text().strip() == str(worker.process.pid)
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    assert not pidfile.exists()
