"""A worker command whose children a zygote forks: what dies, and what the children are."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import psutil
import pytest
from helpers import BOUND, insist, signal_each, until

from fsdf_engine import task_deco

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are none elsewhere")
ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import multiprocessing, os, random, signal, subprocess, sys, threading, time
from pathlib import Path
from fsdf_engine import at_child, task_deco

def note(*facts):
    with open("notes", "ab", 0) as notes:
        notes.write(" ".join(map(str, facts)).encode() + b"\\n")

@task_deco("work", concurrent_mode="processes", broker_kind="sqlite", lease=3.0{options})
def work(n):
    {body}
"""


class Worker:
    """A process of `fsdf run`, and what it says."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "fsdf_engine.cli", "run", "program.py"]
        self.process = subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.said = ""
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.said += line

    def children(self, name: str) -> list[psutil.Process]:
        """Return those that are alive and have this name, or begin with it."""
        found = []
        for child in psutil.Process(self.pid).children():
            try:
                if child.name() == name and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda child: child.pid)

    def zygotes(self) -> list[psutil.Process]:
        """Return them, once all are there."""
        until(lambda: len(self.children("fsdf-zygote")) == 3)
        return self.children("fsdf-zygote")

    def drain(self) -> None:
        """End it by SIGTERM; nothing of it is left."""
        family = psutil.Process(self.pid).children(recursive=True)
        self.process.terminate()
        assert self.process.wait(BOUND) == 0
        self._reader.join(BOUND)
        until(lambda: not any(each.is_running() for each in family))


@pytest.fixture
def start(tmp_path, monkeypatch):
    """`start(body, options="", more="")` -> a worker of the task `work`."""
    workers = []

    def start(body, options="", more=""):
        text = PROGRAM.format(body=body.replace("\n", "\n    "), options=options) + more
        (tmp_path / "program.py").write_text(text)
        workers.append(Worker(tmp_path))
        return workers[-1]

    start.notes = lambda: [line.split() for line in lines(tmp_path / "notes")]
    yield start
    for worker in workers:
        if worker.process.poll() is None:
            family = psutil.Process(worker.pid).children(recursive=True)
            worker.process.kill()
            signal_each(family, signal.SIGKILL)
        worker.process.wait()


@pytest.fixture
def task():
    @task_deco("work", broker_kind="sqlite")
    def work(n):
        raise AssertionError("runs in the worker only")

    return work


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


NOTE = "note(n, os.getpid(), os.getppid())"


def test_children_are_the_workers_own_and_those_of_a_killed_zygote_go_on(start, task):
    """Its spare starts those that replace them, and nothing is lost.

    Who is killed may have become a child at that moment, in a run even, which is then repeated.
    """
    worker = start(f"time.sleep(0.002)\n{NOTE}", ", concurrent_num=3, max_tasks_per_child=20")
    task.push_many({"n": n} for n in range(1500))
    chance = random.Random(5)
    for goal in (100, 300, 500, 700, 900):
        until(lambda goal=goal: len(start.notes()) > goal)
        zygotes = worker.zygotes()
        victim = zygotes[0] if goal == 100 else chance.choice(zygotes)
        victim.kill()
        until(lambda victim=victim: re.search(rf"{victim.pid} (ended|died)", worker.said))
        assert not victim.is_running()
    until(lambda: task.size() == (0, 0, 0, 0), 60.0)
    runs = Counter(int(n) for n, _, _ in start.notes())
    assert set(runs) == set(range(1500))
    assert runs.total() - 1500 <= worker.said.count(" died (")
    assert {int(parent) for _, _, parent in start.notes()} == {worker.pid}
    assert "zygote " in worker.said
    assert "there is no zygote" not in worker.said
    worker.zygotes()
    worker.drain()


def test_without_any_zygote_the_fork_server_starts_children(start, task):
    worker = start(NOTE, ", concurrent_num=2, max_tasks_per_child=1")
    task.push(n=0)
    until(lambda: len(start.notes()) == 1)
    both = worker.zygotes()
    for zygote in both:
        zygote.suspend()  # so that neither forks a spare when the other one is dead
    for zygote in both:
        zygote.kill()
    task.push_many({"n": n} for n in range(1, 6))
    until(lambda: task.size() == (0, 0, 0, 0), 60.0)
    assert Counter(int(n) for n, _, _ in start.notes()) == Counter(range(6)), worker.said
    assert worker.said.count("there is no zygote any more") == 1
    assert worker.children("fsdf-zygote") == []
    worker.drain()


def test_zygote_that_does_not_answer_is_replaced(start, task):
    more = "\nimport fsdf_engine.zygote.context\nfsdf_engine.zygote.context.PATIENCE = 0.5\n"
    worker = start(NOTE, ", concurrent_num=1, max_tasks_per_child=1", more)
    task.push(n=0)
    until(lambda: len(start.notes()) == 1)
    stopped = worker.zygotes()[0]
    stopped.suspend()
    task.push_many({"n": n} for n in range(1, 4))
    until(lambda: task.size() == (0, 0, 0, 0), 60.0)
    assert len(start.notes()) == 4
    assert not stopped.is_running()
    worker.zygotes()
    worker.drain()


def test_a_hundred_children_leave_nothing_behind(start, task):
    worker = start(NOTE, ", concurrent_num=2, max_tasks_per_child=1")
    process = psutil.Process(worker.pid)
    held = []
    for n in range(2):
        task.push_many({"n": m} for m in range(n, n + 50))
        until(lambda: task.size() == (0, 0, 0, 0), 60.0)
        until(lambda: not worker.children("fsdf-child"))
        until(lambda: len(process.children()) == 4)  # the zygotes, and who tracks semaphores
        held.append(process.num_fds())
    assert len({pid for _, pid, _ in start.notes()}) == 100
    assert held[1] < held[0] + 10  # what the last ones had is freed with the next ones
    assert not any(each.status() == psutil.STATUS_ZOMBIE for each in process.children())
    worker.drain()


def test_killed_child_ends_its_run_only_and_its_code_is_told(start, task):
    body = f"{NOTE}\nif n == 1 and len(Path('notes').read_text().splitlines()) < 3: os.abort()"
    worker = start(body, ", concurrent_num=1")
    for n in range(3):
        task.push(n=n)
    until(lambda: task.size() == (0, 0, 0, 0), 60.0)
    until(lambda: f"exit code {-signal.SIGABRT}" in worker.said)
    assert Counter(int(n) for n, _, _ in start.notes()) == {0: 1, 1: 2, 2: 1}
    worker.drain()


def test_all_die_with_a_killed_worker(start, task):
    worker = start(f"{NOTE}\nif n: time.sleep(60)", ", concurrent_num=2")
    task.push_many([{"n": 0}, {"n": 1}, {"n": 2}])
    until(lambda: len(start.notes()) == 3)
    family = psutil.Process(worker.pid).children()
    assert len(family) >= 4
    worker.process.kill()
    until(lambda: not any(each.is_running() for each in family))


def test_first_signal_drains_and_the_second_leaves_nothing(start, task):
    worker = start(f"{NOTE}\ntime.sleep(60)", ", concurrent_num=1")
    task.push(n=0)
    until(lambda: len(start.notes()) == 1)
    family = psutil.Process(worker.pid).children()
    for each in [*family, worker.process]:  # as a manager does that signals all of a service
        each.send_signal(signal.SIGTERM)
    until(lambda: "draining" in worker.said)
    worker.zygotes()
    insist(worker.process, signal.SIGTERM)
    assert worker.process.wait(BOUND) == 128 + signal.SIGTERM
    until(lambda: not any(each.is_running() for each in family))
    assert tuple(task.size()) == (1, 0, 0, 0)


def test_user_code_sees_a_process_of_its_own(start, task):
    body = """
me, above = multiprocessing.current_process(), multiprocessing.parent_process()
threads = [t.name for t in threading.enumerate() if t.name != "fsdf-parent"]
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
with multiprocessing.get_context("fork").Pool(1) as pool:
    forked = pool.apply(os.getppid)
note(
    n, os.getpid(), random.random(), me.name, me.daemon, above.pid, os.getppid(), *threads,
    os.getpgrp(), threading.current_thread() is threading.main_thread(), not mask,
    sys.modules["__main__"].__spec__.name, forked == os.getpid(), here, Path.cwd(),
)
print("printed", n)  # is flushed at the end
barrier = Path("second")
if n == 0:
    while not barrier.exists(): time.sleep(0.01)
barrier.touch()
"""
    worker = start(body, ", concurrent_num=2", "here = os.getpid()\n")
    task.push_many([{"n": 0}, {"n": 1}])
    until(lambda: task.size() == (0, 0, 0, 0), 60.0)
    facts = start.notes()
    assert len({line[1] for line in facts}) == 2  # two children,
    assert len({line[2] for line in facts}) == 2  # with random numbers of their own
    for _, pid, _, *rest in facts:
        assert rest == [
            "fsdf-child", "False", str(worker.pid), str(worker.pid), "MainThread", pid, "True",
            "True", "fsdf_engine.cli.__main__", "True", str(worker.pid), rest[-1],
        ]  # fmt: skip
    worker.drain()


def test_what_a_run_leaves_behind_is_not_the_workers(start, task, tmp_path):
    body = """
note(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, os.getpid())
while not Path("go").exists(): time.sleep(0.01)
"""
    worker = start(body, ", concurrent_num=1, max_tasks_per_child=1")
    task.push(n=0)
    until(lambda: len(start.notes()) == 1)
    worker.zygotes()  # while one is forked the worker is the parent of orphans
    (tmp_path / "go").touch()
    until(lambda: task.size() == (0, 0, 0, 0) and not worker.children("fsdf-child"))
    pid, child = map(int, start.notes()[0])
    left = psutil.Process(pid)
    try:
        # A process whose first thread has ended is a zombie, and a parent until all have.
        until(lambda: left.ppid() not in {worker.pid, child})
        task.push(n=1)
        until(lambda: len(start.notes()) == 2)
        assert left.ppid() != worker.pid
    finally:
        for sleeping, _ in start.notes():
            psutil.Process(int(sleeping)).kill()
    worker.drain()


def test_connections_of_before_the_fork_are_not_the_childrens(start, redis_url, monkeypatch):
    """A module that pushes when it is imported has opened some."""
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    more = """
@task_deco("other", broker_kind="redis_ack", concurrent_num=2, concurrent_mode="processes")
def other(n):
    note(n, os.getpid())
    if n < 300: other.push(n=n + 3)
other.push_many([{"n": 0}, {"n": 1}, {"n": 2}])
"""
    worker = start(NOTE, more=more)
    until(lambda: len(start.notes()) == 303)
    assert Counter(int(n) for n, _ in start.notes()) == Counter(range(303))
    assert len({pid for _, pid in start.notes()}) == 2
    assert "fork server" not in worker.said
    worker.drain()


HOOKS = """
def failing():
    note("failing", os.getpid())
    raise SystemExit(3)
at_child(fork=failing, start=failing, end=failing)
at_child(
    fork=lambda: note("fork", os.getpid()), start=lambda: note("start", os.getpid()),
    end=lambda: note("end", os.getpid()),
)
"""


@pytest.mark.parametrize("method", ["", "spawn"])
def test_hooks_are_called_before_the_fork_and_around_the_runs_of_a_child(start, task, method):
    options = f", process_start_method={method!r}" if method else ""
    worker = start("note('run', os.getpid())", f", concurrent_num=1{options}", HOOKS)
    task.push(n=0)
    until(lambda: task.size() == (0, 0, 0, 0))
    worker.drain()
    pid = next(pid for what, pid in start.notes() if what == "run")
    assert [what for what, who in start.notes() if who == pid] == [
        "failing", "start", "run", "failing", "end",
    ]  # fmt: skip
    forks = [what for what, who in start.notes() if who == str(worker.pid)]
    assert forks == ([] if method else ["failing", "fork"])
    assert worker.said.count("SystemExit: 3") == len(forks) // 2 + 2


def test_where_an_import_has_started_a_thread_the_fork_server_is_taken(start, task):
    more = "threading.Thread(target=threading.Event().wait, daemon=True, name='mine').start()\n"
    worker = start(NOTE, ", concurrent_num=1", more)
    task.push(n=0)
    until(lambda: task.size() == (0, 0, 0, 0), 60.0)
    assert "the fork server starts children instead of a zygote" in worker.said
    assert "(mine)" in worker.said
    assert worker.children("fsdf-zygote") == []
    worker.drain()


def test_supervised_processes_are_forked_by_it_too(tmp_path, task, start, monkeypatch):
    task.push_many({"n": n} for n in range(20))
    (tmp_path / "program.py").write_text(PROGRAM.format(body=NOTE, options="").replace(
        '"processes"', '"threads"'
    ))  # fmt: skip
    command = ["-m", "fsdf_engine.cli", "run", "--processes", "2", "program.py"]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        until(lambda: task.size() == (0, 0, 0, 0), 60.0)
        expected = {"fsdf-child": 2, "fsdf-zygote": 3, "python": 1}  # that one tracks semaphores
        children = psutil.Process(process.pid).children
        until(lambda: Counter(child.name() for child in children()) == expected)
        [first, *_] = [child for child in children() if child.name() == "fsdf-child"]
        first.terminate()  # drains it, and it is replaced
        until(lambda: not first.is_running())
        until(lambda: Counter(child.name() for child in children()) == expected)
        assert {parent for _, _, parent in start.notes()} == {str(process.pid)}
        process.terminate()
        assert process.wait(BOUND) == 0
    finally:
        process.kill()
        process.wait()
