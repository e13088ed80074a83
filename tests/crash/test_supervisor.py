"""Worker processes under a supervisor: killed, crashing, drained, orphaned."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from helpers import BOUND, until

from fsdf_engine.errors import ConfigurationError, FsdfError
from fsdf_engine.supervisor import DEATHS, MOST_BACKOFF, Supervisor, _Place, importing_main
from fsdf_engine.worker_process import served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests kill by signals")
TESTS = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


@pytest.fixture
def supervise(tmp_path):
    """Return a factory of started supervisors, which are ended after the test."""
    made = []

    def factory(n, kind="steady", **options):
        supervisor = Supervisor(
            n, targets=[(str(tmp_path), "")], function=f"supervised:{kind}", **options
        )
        made.append(supervisor)
        supervisor.start()
        return supervisor

    yield factory
    for supervisor in made:
        pids = supervisor.processes
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        supervisor.ask_stop(drain=False)
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        assert supervisor._ended.wait(BOUND)


def said(folder, word):
    """Return the lines of the children that begin with `word`, without their process ids."""
    log = folder / "log"
    found = log.read_text().splitlines() if log.exists() else []
    return [line.rpartition(" ")[0] for line in found if line.startswith(word)]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_stop_drains_every_child(supervise, tmp_path, start):
    supervisor = supervise(3, start=start)
    until(lambda: len(said(tmp_path, "start")) == 3)
    pids = supervisor.processes
    assert len(set(pids)) == 3
    assert not supervisor.join(0.0)
    supervisor.stop(timeout=7.0)
    assert said(tmp_path, "stop") == ["stop True 7"] * 3
    assert supervisor.processes == []
    assert supervisor.join(BOUND)
    assert not any(map(alive, pids))


def test_killed_child_is_replaced_and_the_others_live_on(supervise, tmp_path):
    supervisor = supervise(2)
    until(lambda: len(said(tmp_path, "start")) == 2)
    first, second = supervisor.processes
    os.kill(first, signal.SIGKILL)
    until(lambda: len(said(tmp_path, "start")) == 3)
    assert first not in supervisor.processes
    assert second in supervisor.processes
    supervisor.stop()
    assert said(tmp_path, "stop") == ["stop True 30"] * 2


def test_crash_loop_ends_the_supervisor_with_an_error(supervise, tmp_path, caplog):
    with caplog.at_level(logging.ERROR, "fsdf.supervisor"):
        supervisor = supervise(1, "crashing")
        with pytest.raises(FsdfError, match="died 5 times at its start"):
            supervisor.join(BOUND)
    assert said(tmp_path, "start") == ["start"] * 5
    assert "it is not started again" in caplog.text
    assert supervisor.processes == []


KILLER = """
import os, sys
from fsdf_engine import task_deco

@task_deco("killer", concurrent_num=1, lease=0.5)
def job(n):
    if n == 0:
        os._exit(1)
    print("ran", n, flush=True)

if __name__ == "__main__":
    job.push(0)
    supervisor = job.multi_process_consume(1)
    print(job.join(60), [letter.body[:6] for letter in job.dead_letters()], flush=True)
    job.push(1)
    print(job.join(20), flush=True)
    supervisor.stop()
"""


def test_message_that_kills_its_worker_is_given_up_before_the_service_is(tmp_path):
    (script := tmp_path / "killer.py").write_text(KILLER)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**ENVIRONMENT, "FSDF_SQLITE_PATH": str(tmp_path / "q.sqlite")},
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["True [b'{\"n\":0']", "ran 1", "True"], done.stderr
    assert "it is not started again" not in done.stderr


def test_only_deaths_before_the_first_fetch_are_a_crash_loop():
    place = _Place()
    for _ in range(50):
        place.died(place.born + 1.0, has_served=True)
        assert not place.given_up
    assert place.start_at - place.born <= 1.0 + MOST_BACKOFF
    for n in range(DEATHS):
        assert not place.given_up
        place.died(place.born + n)
    assert place.given_up


@pytest.mark.parametrize(
    ("told", "expected"), [(b"", False), (b"s", True), (b"ss", True), (b"sf", False), (b"f", False)]
)
def test_child_that_cannot_consume_has_not_served(told, expected):
    assert served(told) is expected


def test_child_that_asks_for_a_restart_is_in_no_crash_loop(supervise, tmp_path):
    supervisor = supervise(1, "asking")
    until(lambda: len(said(tmp_path, "start")) == 11)
    supervisor.stop()
    assert supervisor.join(0)


def test_child_that_does_not_end_is_killed(supervise, tmp_path, monkeypatch):
    monkeypatch.setattr("fsdf_engine.supervisor.FORCE", 0.2)
    supervisor = supervise(2, "stubborn")
    until(lambda: len(said(tmp_path, "start")) == 2)
    pids = supervisor.processes
    supervisor.stop(timeout=0.1)
    assert not any(map(alive, pids))


def test_second_stop_ends_at_once(supervise, tmp_path):
    supervisor = supervise(1)
    until(lambda: said(tmp_path, "start"))
    (pid,) = supervisor.processes
    os.kill(pid, signal.SIGSTOP)
    supervisor.ask_stop(timeout=600.0)
    supervisor.ask_stop(drain=False)
    os.kill(pid, signal.SIGCONT)
    assert supervisor.join(BOUND)


PARENT = """
import sys, threading
from fsdf_engine.supervisor import Supervisor

if __name__ == "__main__":
    supervisor = Supervisor(2, targets=[(sys.argv[1], "")], function="supervised:" + sys.argv[2])
    supervisor.start()
    if sys.argv[3:]:
        supervisor.join()
"""


@contextlib.contextmanager
def ended(process):
    """Kill the process when the block fails, so that no test waits for it."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def parent(tmp_path, *arguments, script=PARENT):
    (file := tmp_path / "parent.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(file), str(tmp_path), *arguments],
        env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    until(lambda: len(said(tmp_path, "start")) == 2)
    starts = (tmp_path / "log").read_text().splitlines()
    return process, [int(line.split()[1]) for line in starts]


@pytest.mark.parametrize("kind", ["steady", "stubborn"])
def test_nothing_is_orphaned_when_the_parent_is_killed(tmp_path, kind):
    process, children = parent(tmp_path, kind)
    with ended(process):
        process.kill()
    until(lambda: not any(map(alive, children)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("joins", [(), ("join",)], ids=["script-has-ended", "script-joins"])
def test_signal_drains_the_children_once(tmp_path, number, joins):
    """To the whole group, as service managers and terminals send it."""
    process, children = parent(tmp_path, "steady", *joins)
    with ended(process):
        os.killpg(process.pid, number)
        process.wait(BOUND)
    assert said(tmp_path, "stop") == ["stop True 30"] * 2
    until(lambda: not any(map(alive, children)))


ENDED = """
import sys
from supervised import steady
from fsdf_engine.supervisor import Supervisor

if __name__ == "__main__":
    Supervisor(2, targets=[(sys.argv[1], "")], function="__main__:steady").start()
"""


def test_children_import_a_main_module_that_has_ended(tmp_path):
    """Those that are started after the script's last line, too."""
    process, children = parent(tmp_path, script=ENDED)
    with ended(process):
        os.kill(children[0], signal.SIGKILL)
        until(lambda: len(said(tmp_path, "start")) == 3)
        process.terminate()
        process.wait(BOUND)
    assert said(tmp_path, "stop") == ["stop True 30"] * 2


UNGUARDED = """
import sys
from fsdf_engine.supervisor import Supervisor

Supervisor(3, targets=[(sys.argv[1], "")], function="supervised:steady").start()
"""


def test_missing_guard_is_explained_once(tmp_path):
    (script := tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=ENVIRONMENT, timeout=3 * BOUND,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    explained = "put what starts processes under `if __name__ == '__main__':`"
    assert done.stderr.count(explained) == 1
    assert "Traceback" not in done.stderr
    assert not said(tmp_path, "start")


def test_child_that_is_importing_says_so():
    assert not importing_main()
    code = (
        "import multiprocessing as m; m.current_process()._inheriting = True\n"
        "from fsdf_engine.supervisor import Supervisor\n"
        "Supervisor(1, targets=[]).start()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS.parent, check=False
    )
    assert "put what starts processes under" in done.stderr


def test_wrong_numbers_and_start_methods_are_refused():
    with pytest.raises(ConfigurationError, match="0 processes"):
        Supervisor(0, targets=[])
    with pytest.raises(ConfigurationError, match="'threads'; this system has"):
        Supervisor(1, targets=[], start="threads")


OVERLOADED = """
import os, sys, threading
from fsdf_engine import task_deco
from fsdf_engine.supervisor import run_consumer_with_multi_process

@task_deco("jobs", concurrent_num=1, function_timeout=0.05, timeout_kill="never")
def job(nth):
    print("run", nth, os.getpid(), flush=True)
    if nth < 2:
        threading.Event().wait()

if __name__ == "__main__":
    for nth in range(3):
        job.push(nth)
    supervisor = run_consumer_with_multi_process(job)
    sys.stdin.read()
    supervisor.stop()
"""


def test_process_full_of_runs_that_cannot_be_ended_is_replaced(tmp_path):
    (tmp_path / "overloaded.py").write_text(OVERLOADED)
    environment = {**ENVIRONMENT, "FSDF_SQLITE_PATH": str(tmp_path / "queue.sqlite")}
    with subprocess.Popen(
        [sys.executable, "overloaded.py"], cwd=tmp_path, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as parent:  # fmt: skip
        watch = threading.Timer(BOUND, parent.kill)
        watch.start()
        runs = [parent.stdout.readline().split() for _ in range(3)]
        _, errors = parent.communicate("")
        watch.cancel()
    assert [nth for _, nth, _ in runs] == ["0", "1", "2"]
    pids = [pid for *_, pid in runs]
    assert pids[0] == pids[1] != pids[2]
    assert "asked to be started again" in errors
    assert parent.returncode == 0


STUCK = """
import os, sys, time
from fsdf_engine import task_deco

@task_deco("stuck", concurrent_num=1, function_timeout=0.2, max_retry_times=0)
def stuck(n):
    print(n, os.getpid(), flush=True)
    if n < 2:
        time.sleep(600)  # in C: no exception reaches it

if __name__ == "__main__":
    stuck.push_many((n,) for n in range(3))
    supervisor = stuck.multi_process_consume(1)
    stuck.join(20)
    supervisor.stop()
"""


def test_a_worker_full_of_runs_that_cannot_be_ended_is_replaced(tmp_path):
    (script := tmp_path / "stuck.py").write_text(STUCK)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**ENVIRONMENT, "FSDF_SQLITE_PATH": str(tmp_path / "q.sqlite")},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    first, second, third = (line.split() for line in done.stdout.splitlines())
    assert [first[0], second[0], third[0]] == ["0", "1", "2"], done.stderr
    assert first[1] == second[1] != third[1]
    assert done.returncode == 0, done.stderr
