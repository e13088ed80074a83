"""Runs that fork: what the child is, and what it has not, in every pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROOT = Path(__file__).parent.parent.parent
MODES = ["threads", "inline", "asyncio", "processes", "gevent", "eventlet"]
FORKS = """
import sys
mode, how, folder = sys.argv[1:]
if mode == "gevent":
    from gevent import monkey
    monkey.patch_all()
elif mode == "eventlet":
    import eventlet
    eventlet.monkey_patch()
import os, signal, threading, time
from fsdf_engine import ExceptionForRetry, task_deco

def note(*what):
    with open(folder + "/log", "ab", buffering=0) as file:
        file.write(" ".join(map(str, what)).encode() + b"\\n")

def in_child():
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    note("default", handlers == [signal.SIG_DFL, signal.default_int_handler])
    if how == "wait":
        time.sleep(0.3)  # it lives on beside its parent, as a user's child would
    if how == "exit":
        sys.exit(3)
    if how == "retry":
        raise ExceptionForRetry("in the child", delay=0)
    if how == "push":
        work.push(100)

def body(n):
    note("run", n)
    if n != 3:
        return time.sleep(0.001)
    child = os.fork()
    if child == 0:
        return in_child()
    if how == "push":
        work.push(101)
    pause, ended = threading.Event(), 0
    for _ in range(1000):
        if not ended:
            ended, status = os.waitpid(child, os.WNOHANG)
            pause.wait(0.01)
    note("ended", os.waitstatus_to_exitcode(status) if ended else "never")
    if not ended:
        os.kill(child, signal.SIGKILL)

async def abody(n):
    body(n)

work = task_deco("work", concurrent_mode=mode, concurrent_num=2)(
    abody if mode == "asyncio" else body
)
if __name__ == "__main__":
    work.push_many([(n,) for n in range(40)])
    consumer = work.consume()
    work.join(20)
    print(tuple(work.size()))
    consumer.stop()
"""
# A thread that ends is not the end of an interpreter, which alone knows of exit codes; where runs
# are in the main thread, the child ends as a process of Python's does.
CODES = {"return": 0, "exit": 3, "retry": 1, "push": 0, "wait": 0}


def run(tmp_path, code, *arguments):
    """Run a program; one that does not end in time shows what its threads do."""
    shows = "import faulthandler, signal\nfaulthandler.register(signal.SIGUSR1)\n"
    (tmp_path / "program.py").write_text(shows + code)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "program.py", *arguments, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            try:
                process.communicate(timeout=2)
            except subprocess.TimeoutExpired as late:
                process.kill()
                raise AssertionError((late.stderr or b"").decode(errors="replace")) from None
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize("mode", MODES)
def test_a_child_that_comes_back_from_a_run_ends_and_has_nothing_of_ours(tmp_path, mode, how):
    done = run(tmp_path, FORKS, mode, how)
    assert (done.stdout, done.returncode) == ("(0, 0, 0, 0)\n", 0), done.stderr
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    runs = Counter(int(what) for kind, what in lines if kind == "run")
    further = [100, 101] if how == "push" else []
    assert runs == Counter([*range(40), *further])
    of_main = mode in ("processes", "gevent", "eventlet")
    assert [what for kind, what in lines if kind == "ended"] == [str(CODES[how] * of_main)]
    assert [what for kind, what in lines if kind == "default"] == ["True"]
    assert ("in the child" in done.stderr) == (how == "retry")


WOKEN = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
    from gevent import spawn
else:
    import eventlet
    eventlet.monkey_patch()
    from eventlet import spawn
import os, time
from fsdf_engine import green

event, told = green.Event(), []

def tell():  # another thread: it wakes the main greenlet in a turn of the hub to come
    event.set()
    told.append(True)

def fork():
    green.native_thread(tell, "tell")
    while not told:
        pass
    child = os.fork()
    if child == 0:
        time.sleep(0.001)  # the hub of the copy has a turn, as in a user's child
        sys.exit(3)
    for _ in range(1000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)  # a wait for the child has no bound, or blocks the hub
    else:
        os.kill(child, 9)
    print(os.waitstatus_to_exitcode(status) if ended else "never", flush=True)

forking = spawn(fork)
event.wait()
(getattr(forking, "join", None) or forking.wait)()
"""


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_child_does_not_wait_for_who_was_about_to_wake_its_parent(tmp_path, library):
    """The exit of the child is raised in the copy of the main greenlet, which waited."""
    done = run(tmp_path, WOKEN, library)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


POOLS = """
import multiprocessing
from fsdf_engine import task_deco

@task_deco("pools", concurrent_num=4)
def work():
    with multiprocessing.get_context("fork").Pool(3) as pool:
        next(pool.imap_unordered(abs, range(50)))

if __name__ == "__main__":
    work.push_many([()] * 40)
    consumer = work.consume()
    print(work.join(40))
    consumer.stop()
"""


def test_pools_that_runs_fork_come_and_go(tmp_path):
    """Each ends its children by SIGTERM, some of them just born."""
    done = run(tmp_path, POOLS)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


EXECUTOR = """
import os
import signal
from fsdf_engine import ShrinkablePool

def fork():
    return os.fork()

pool = ShrinkablePool(1)
child = pool.submit(fork).result()
print(os.waitpid(child, 0)[1], flush=True)
pool.shutdown()
"""


def test_a_child_that_comes_back_from_a_call_of_an_executor_ends(tmp_path):
    done = run(tmp_path, EXECUTOR)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
