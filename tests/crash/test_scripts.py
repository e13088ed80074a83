"""Whole programs: scripts that end with `consume()`, forks, a result store that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import BOUND, ending, until

from fsdf_engine import default_engine, task_deco

ENDS_IN_CONSUME = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
from fsdf_engine import default_engine, task_deco

def main_is_waiting():
    frame = sys._current_frames()[threading.main_thread().ident]
    waits = lambda code: code.co_name == "_wait" and code.co_filename.endswith("exit.py")
    while frame and not waits(frame.f_code):
        frame = frame.f_back
    return frame is not None


@task_deco("ends")
async def look_up():
    while not main_is_waiting():
        await asyncio.sleep(0.001)
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    await asyncio.to_thread(int)
    ThreadPoolExecutor(1).submit(int).result()
    threading.Thread(target=int).start()
    print("whole", flush=True)
    default_engine().stop()

look_up.push()
look_up.consume()
"""
SIGNALLED = """
import os, signal, sys, threading
from fsdf_engine import task_deco

def main_is_waiting():
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code.co_name == "_wait" and frame.f_code.co_filename.endswith("exit.py")

@task_deco("signalled")
def signal_this_thread():
    while not main_is_waiting():
        threading.Event().wait(0.001)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    print("ran", flush=True)

signal_this_thread.push()
signal_this_thread.consume()
"""
PATCHED = """
import sys
from fsdf_engine import default_engine, patch_frame_config, task_deco

@task_deco("patched", concurrent_mode=sys.argv[1], concurrent_num=1)
def where():
    print(default_engine().config.text("SQLITE_PATH"), flush=True)

if __name__ == "__main__":
    patch_frame_config(SQLITE_PATH=sys.argv[2])
    where.push()
    consumer = where.consume() if sys.argv[1] == "processes" else where.multi_process_consume(1)
    where.join(20)
    consumer.stop()
"""
DRAINS = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
elif sys.argv[1] == "eventlet":
    import eventlet
    eventlet.monkey_patch()
import time
from fsdf_engine import task_deco

@task_deco("drains", concurrent_mode=sys.argv[1])
def work():
    print("started", flush=True)
    time.sleep(0.3)  # a run that a stop waits for
    print("ended", flush=True)

work.push()
if sys.argv[2:] == ["join"]:
    work.consume().join()
work.consume()
if sys.argv[2:] == ["exit"]:
    sys.exit(0)
"""
FORK_DRAINS = """
import multiprocessing, os, signal, threading
from fsdf_engine import default_engine, task_deco

ear, mouth = os.pipe()

def live():
    os.write(mouth, b"!")
    threading.Event().wait(60)

@task_deco("fork_drains")
def work():
    os.kill(os.getpid(), signal.SIGTERM)
    [handle] = default_engine().handles()
    while not handle.consumer._stopping.wait(0.001):  # until the drain has begun
        pass
    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    os.read(ear, 1)
    child.terminate()
    child.join(10)
    print("alive" if child.is_alive() else "ended", flush=True)

work.push()
work.consume().join()
"""
FORKS = """
import os, sys
from fsdf_engine import default_engine, task_deco

@task_deco("forks", broker_kind=sys.argv[1], is_using_rpc_mode=True)
def double(n):
    return 2 * n

first = double.push(1)
pid = os.fork()
if pid == 0:
    second = double.push(2)
    consumer = double.consume()
    print(second.get(20), flush=True)
    double.join(20)
    consumer.stop()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(first.get(20), double.push(3).task_id != "", double.size().waiting, flush=True)
"""


def run(code, *arguments):
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ, check=False
    )


def test_a_script_that_ends_in_consume_keeps_a_whole_interpreter():
    done = run(ENDS_IN_CONSUME)
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr


def test_a_script_at_its_end_drains_at_a_signal_that_its_main_thread_has_not_noticed():
    """As at one that comes just before the main thread blocks: no handler has run by then."""
    done = run(SIGNALLED)
    assert (done.stdout, done.returncode) == ("ran\n", 0), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["threads", "gevent", "eventlet"])
def test_a_script_at_its_end_drains_at_a_signal_in_every_mode(mode, number):
    """Also at one that comes while the interpreter is on its way to where it waits."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DRAINS, mode],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        said, errors = ending(process)
    finally:
        process.kill()
    assert (said, process.returncode) == ("ended\n", 0), errors


@pytest.mark.parametrize("how", ["join", "exit"])
def test_a_script_drains_at_a_signal_however_it_ends(how):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DRAINS, "threads", how],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        said, errors = ending(process)
    finally:
        process.kill()
    assert (said, process.returncode) == ("ended\n", 0), errors


def test_a_process_forked_while_a_worker_drains_can_be_ended():
    done = run(FORK_DRAINS)
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("broker", ["sqlite", "redis_ack", "redis_stream"])
def test_a_fork_after_the_first_push_shares_nothing_it_must_not(broker, redis_url, monkeypatch):
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    done = run(FORKS, broker)
    assert done.stdout == "4\n2 True 1\n", done.stderr


@pytest.mark.parametrize("mode", ["processes", "threads"])
def test_child_processes_have_the_configuration_that_was_patched(tmp_path, mode):
    (script := tmp_path / "script.py").write_text(PATCHED)
    place = str(tmp_path / "patched.sqlite")
    done = subprocess.run(
        [sys.executable, str(script), mode, place],
        capture_output=True, text=True, timeout=60, env=os.environ,
    )  # fmt: skip
    assert done.stdout == f"{place}\n", done.stderr


def test_a_result_store_that_goes_away_at_full_load_loses_nothing(own_redis, monkeypatch):
    store = own_redis(aof=True, config={"appendfsync": "always"})
    monkeypatch.setenv("FSDF_REDIS_URL", store.url)
    options = {"broker_kind": "sqlite", "result_store": "redis", "is_using_rpc_mode": True}

    @task_deco("outage", prefetch=100, **options)
    def work(n):
        return n

    results = work.push_many((n,) for n in range(6000))
    consumer = work.consume().consumer
    until(lambda: consumer.outbox.settled > 500)
    store.kill()
    began, flushes = time.monotonic(), consumer.outbox.flushes
    until(lambda: consumer.outbox.flushes >= flushes + 4 and time.monotonic() - began > 1.0)
    assert work.size().leased <= consumer.hard == 250
    assert consumer.most_held <= consumer.hard
    store.start()
    assert work.join(BOUND)
    found = default_engine().replies(work.options).store.read([r.task_id for r in results])
    assert len(found) == 6000
