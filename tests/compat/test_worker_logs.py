"""What a worker writes: where it is connected to, what tasks print, how runs were ended."""

from __future__ import annotations

import os
import signal

import pytest
from helpers import BOUND, until

from fsdf_compat import exceptions


def until_noted(project, line):
    until(lambda: line in project.notes())


@pytest.mark.parametrize(
    ("options", "process"),
    [
        (("-P", "threads"), "MainProcess"),
        (("-P", "prefork"), "ForkPoolWorker-1"),
        (("-P", "prefork", "--pool-start-method", "spawn"), "SpawnPoolWorker-1"),
    ],
)
def test_what_a_task_prints_is_logged_by_whoever_runs_it(redis_project, options, process):
    proj = redis_project.write("""
    import sys

    @app.task
    def talk():
        print("to stdout")
        sys.stderr.write("to stderr\\n")
    """)
    worker = redis_project.worker("-c", "1", "-l", "INFO", *options)
    proj.talk.delay().get(timeout=BOUND)
    worker.says(f"WARNING/{process}] to stdout")
    worker.says(f"WARNING/{process}] to stderr")
    said = "".join(worker.said)
    assert f"Connected to {redis_project.url}" in said
    assert "consuming queue" not in said and "socket_timeout" not in said


def test_what_a_task_prints_is_in_the_log_file_where_there_is_one(redis_project):
    proj = redis_project.write("""
    @app.task
    def talk():
        print("to the file")
    """)
    path = redis_project.folder / "worker.log"
    redis_project.start("-c", "1", "-P", "prefork", "-f", str(path))
    proj.talk.delay().get(timeout=BOUND)
    until(lambda: "WARNING/ForkPoolWorker-1] to the file" in path.read_text())


def test_streams_are_left_alone_where_the_settings_say_so(redis_project):
    proj = redis_project.write("""
    app.conf.worker_redirect_stdouts = False

    @app.task
    def talk():
        print("as it is", flush=True)
    """)
    worker = redis_project.worker("-c", "1", "-P", "prefork")
    proj.talk.delay().get(timeout=BOUND)
    worker.says("as it is\n")
    assert "as it is\n" in worker.said


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_soft_limit_that_is_passed_is_told_in_the_log(redis_project, pool):
    proj = redis_project.write("""
    from fsdf_compat.exceptions import SoftTimeLimitExceeded

    @app.task(soft_time_limit=0.2)
    def wait():
        try:
            while True:
                time.sleep(0.01)
        except SoftTimeLimitExceeded:
            return "told"
    """)
    worker = redis_project.worker("-c", "1", "-P", pool)
    sent = proj.wait.delay()
    assert sent.get(timeout=BOUND) == "told"
    worker.says(f"Soft time limit (0.2s) exceeded for proj.wait[{sent.id}]")


@pytest.mark.parametrize(
    ("how", "told"),
    [("os._exit(3)", "exitcode 3"), ("os.kill(os.getpid(), 9)", r"signal 9 \(SIGKILL\)")],
)
def test_a_lost_child_is_told_in_celerys_words(redis_project, how, told):
    proj = redis_project.write(f"""
    @app.task
    def die():
        {how}
    """)
    redis_project.worker("-c", "1", "-P", "prefork")
    sent = proj.die.delay()
    text = f"Worker exited prematurely: {told} Job: {sent.id}."
    with pytest.raises(exceptions.WorkerLostError, match=text):
        sent.get(timeout=BOUND)


def test_a_child_that_dies_again_and_again_is_told_with_how_often(redis_project):
    proj = redis_project.write("""
    @app.task(acks_late=True)
    def die():
        os.kill(os.getpid(), 9)
    """)
    redis_project.worker("-c", "1", "-P", "prefork")
    with pytest.raises(exceptions.WorkerLostError, match=r"signal 9 \(SIGKILL\), 6 times Job"):
        proj.die.delay().get(timeout=BOUND)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_what_is_no_exception_but_raised_is_the_result(redis_project, pool):
    proj = redis_project.write("""
    class Stop(BaseException):
        pass

    @app.task
    def stop():
        raise Stop("here")
    """)
    worker = redis_project.worker("-c", "1", "-P", pool)
    with pytest.raises(proj.Stop, match="here"):
        proj.stop.delay().get(timeout=BOUND)
    worker.says("Task handler raised error: Stop('here')")


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_terminated_task_says_so(redis_project, pool):
    proj = redis_project.write("""
    from fsdf_compat import signals

    @app.task
    def wait():
        note("begun")
        while True:
            time.sleep(0.01)

    @signals.task_revoked.connect
    def hear(sender=None, terminated=None, signum=None, expired=None, **facts):
        note(f"{sender.name} {terminated} {signum} {expired}")
    """)
    worker = redis_project.worker("-c", "1", "-P", pool)
    sent = proj.wait.delay()
    until_noted(redis_project, "begun")
    sent.revoke(terminate=True)
    with pytest.raises(exceptions.TaskRevokedError, match="terminated"):
        sent.get(timeout=BOUND)
    until_noted(redis_project, f"proj.wait True {int(signal.SIGTERM)} False")
    worker.says(f"Task proj.wait[{sent.id}] revoked: terminated ({int(signal.SIGTERM)})")
    assert "".join(worker.said).count(f"Task proj.wait[{sent.id}] received") == 1


def test_an_app_without_a_broker_url_is_told_where_its_messages_wait(make_project):
    project = make_project("", None)
    project.write("@app.task\ndef one(): pass\n")
    worker = project.worker("-P", "threads", "-l", "INFO")
    worker.says("pidbox: broker_url is not set: no remote control")
    assert "transport:   sqlite:// (broker_url is not set: only this machine)" in "".join(
        worker.said
    )


@pytest.mark.parametrize("words", [["-D"], ["--detach", "--uid", str(os.getuid())]])
def test_a_detached_worker_runs_and_ends_at_a_signal(redis_project, words):
    proj = redis_project.write("""
    @app.task
    def one():
        print("in the background")
        return 1
    """)
    folder = redis_project.folder
    log, pidfile = folder / "d.log", folder / "d.pid"
    about = "-P", "threads", "-l", "INFO", "-f", str(log), "--pidfile", str(pidfile)
    started = redis_project.start(*about, *words)
    assert started.ends() == 0
    try:
        assert proj.one.delay().get(timeout=2 * BOUND) == 1
        until(lambda: "ready." in log.read_text() and "in the background" in log.read_text())
    finally:
        until(lambda: pidfile.exists() and pidfile.read_text().strip())
        os.kill(int(pidfile.read_text()), signal.SIGTERM)
    until(lambda: not pidfile.exists())


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_an_outage_is_told_once_by_each_who_needs_the_broker(own_redis, make_project, pool):
    server = own_redis(aof=True)
    project = make_project(server.url, server.url)
    proj = project.write("""
    @app.task
    def held():
        note("started")
        wait_for_release()
    """)
    worker = project.worker("-P", pool, "-c", "2", FSDF_LEASE="600")
    proj.held.delay()
    project.noted("started")
    server.kill()
    worker.says("cannot fetch, will try again")
    worker.says("pidbox: connection lost, it is tried again")
    project.release()
    worker.says("cannot store what runs did (1), tries again")
    server.start()
    worker.says("what could not be stored is stored now")
    worker.says("pidbox: connected again")
    worker.says("the broker answers again")
    told = [line for line in worker.said if "WARNING/MainProcess" in line or "ERROR" in line]
    assert len(told) == 5, told
