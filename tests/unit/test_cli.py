"""The command `fsdf`, over a real SQLite queue; what must survive signals runs as a process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import BOUND, ending, insist

from fsdf_engine.cli import main
from fsdf_engine.engine import default_engine

ROOT = Path(__file__).parent.parent.parent
TASKS = """
import multiprocessing, os, signal, sys, threading
from fsdf_engine import task_deco

def print(*words):  # whole lines, also where threads and logs share a pipe
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

print("imported")
gate = threading.Event()

@task_deco("{queue}", max_retry_times=0)
def work(what: str) -> str:
    print(what)
    if what == "fail":
        raise ValueError("bad\\x1b[31m luck")
    if what == "stay":
        gate.wait(60)
    if what == "fork":
        child = multiprocessing.get_context("fork").Process(target=gate.wait, args=(60,))
        child.start()
        child.terminate()
        child.join()
        print("ended by", -child.exitcode)
    if what == "signal":
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    if what == "linger":
        gate.wait(1)
    print("done", what)
    return what
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A project with one task on queue `jobs`, which is the current folder."""
    (tmp_path / "tasks.py").write_text(TASKS.format(queue="jobs"))
    monkeypatch.chdir(tmp_path)
    return "jobs"


@pytest.fixture
def fsdf(tmp_path):
    """Start the command as a process of its own; killed at the end if need be."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fsdf_engine.cli", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def push(queue: str, *words: str) -> None:
    """Publish as another program would, without the function."""
    from fsdf_engine import get_publisher

    publisher = get_publisher(queue)
    for word in words:
        publisher.push(what=word)


def until_said(process: subprocess.Popen[str], text: str) -> str:
    """Read what a process prints, up to a line that holds the text; it has BOUND seconds."""
    said = ""
    assert process.stdout is not None
    watch = threading.Timer(BOUND, process.kill)
    watch.start()
    try:
        for line in process.stdout:
            said += line
            if text in line:
                return said
    finally:
        watch.cancel()
    raise AssertionError(f"it ended without saying {text!r}:\n{said}")


def run(capsys, *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code
    return capsys.readouterr().out


def test_size_counts_each_part(queue, capsys):
    push(queue, "a", "b")
    assert json.loads(run(capsys, "size", queue, "other", "--json")) == [
        {"queue": "jobs", "waiting": 2, "delayed": 0, "leased": 0, "dead": 0},
        {"queue": "other", "waiting": 0, "delayed": 0, "leased": 0, "dead": 0},
    ]
    assert run(capsys, "size", queue).splitlines()[1].split() == ["jobs", "2", "0", "0", "0"]


def test_size_asks_the_broker_that_is_named(tmp_path, queue, capsys):
    push(queue, "a")
    other = str(tmp_path / "other.sqlite")
    sizes = json.loads(
        run(capsys, "size", queue, "--broker", "PERSISTQUEUE", "--url", other, "--json")
    )
    assert sizes[0]["waiting"] == 0


def test_purge_deletes_what_waits(queue, capsys):
    push(queue, "a", "b")
    assert run(capsys, "purge", queue, "--yes") == "deleted 2\n"
    assert default_engine().broker().size(queue).waiting == 0


def test_purge_without_a_terminal_needs_to_be_told(queue, capsys, monkeypatch):
    push(queue, "a")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["purge", queue]) == 2
    assert "say --yes" in capsys.readouterr().err
    assert default_engine().broker().size(queue).waiting == 1


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("", 1), ("no", 1)])
def test_purge_on_a_terminal_asks(queue, capsys, monkeypatch, answer, left):
    push(queue, "a")
    terminal = io.StringIO(answer + "\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    assert main(["purge", queue]) == left
    assert "delete what waits in queue 'jobs' (1)? [y/N]" in capsys.readouterr().out
    assert default_engine().broker().size(queue).waiting == left


@pytest.fixture
def dead(queue, fsdf):
    """The queue, with one dead letter."""
    push(queue, "fail")
    worker = fsdf("run", "tasks.py")
    until_said(worker, "fail")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(BOUND) == 0
    return queue


def test_dead_letters_are_listed_shown_replayed_and_deleted(dead, capsys):
    (letter,) = json.loads(run(capsys, "dead", "list", dead, "--json"))
    assert letter["reason"] == "ValueError: bad\x1b[31m luck"
    assert json.loads(letter["body"])["what"] == "fail"
    listed = run(capsys, "dead", "list", dead)
    assert "ValueError" in listed
    assert "\x1b" not in listed  # a body cannot steer the terminal of who reads it

    shown = run(capsys, "dead", "show", dead, letter["id"])
    assert "in work\n" in shown
    assert "\x1b" not in shown
    assert main(["dead", "show", dead, "no-such-id"]) == 1
    assert "has no dead letter 'no-such-id'" in capsys.readouterr().err

    assert run(capsys, "dead", "replay", dead, "no-such-id", code=1) == "replayed 0\n"
    assert run(capsys, "dead", "replay", dead, letter["id"]) == "replayed 1\n"
    assert default_engine().broker().size(dead)[:] == (1, 0, 0, 0)


def test_dead_letters_are_deleted(dead, capsys):
    assert run(capsys, "dead", "purge", dead, "--yes") == "deleted 1\n"
    assert run(capsys, "dead", "list", dead) == ""


def test_init_writes_to_the_project_root_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    path = tmp_path / "distributed_frame_config.py"
    assert run(capsys, "init") == f"wrote {path}\n"
    path.write_text("LEASE = 3")
    assert main(["init"]) == 2
    assert "exists; it was not changed" in capsys.readouterr().err
    assert path.read_text() == "LEASE = 3"


def test_config_shows_sources_and_no_password(monkeypatch, capsys):
    monkeypatch.setenv("FSDF_REDIS_URL", "redis://:sesame@h:1/0")
    shown = run(capsys, "config")
    assert "redis://:***@h:1/0" in shown
    assert "environment FSDF_REDIS_URL" in shown
    assert "sesame" not in shown
    assert "sesame" not in run(capsys, "config", "--json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["size", "q", "--broker", "redsi"], "did you mean 'redis'"),
        (["size", "q", "--broker", "rocketmq"], "not in this version"),
        (["size", "q", "--broker", "redis", "--url", "redis://127.0.0.1:1/0"], "cannot be reached"),
        (["run", "no_such_module"], "there is no module 'no_such_module'"),
        (["run", "no_such.py"], "there is no file no_such.py"),
        (["run", "json"], "no task is declared"),
        (["run", "tasks.py", "-q", "jos"], "did you mean 'jobs'"),
        (["run", "tasks.py", "--processes", "0"], "give at least 1"),
        (["run", "tasks.py", "--log-level", "loud"], "must be one of DEBUG"),
    ],
)
def test_error_is_one_line(queue, fsdf, arguments, message):
    process = fsdf(*arguments)
    said, _ = ending(process)
    lines = [line for line in said.splitlines() if line != "imported"]
    assert process.returncode == 2
    assert len(lines) == 1, said
    assert lines[0].startswith("fsdf: ")
    assert message in lines[0]


@pytest.mark.parametrize("arguments", [[], ["sizes", "q"], ["dead"], ["purge"], ["dead", "show"]])
def test_usage_is_shown_for_what_is_no_command(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: fsdf" in capsys.readouterr().err


def test_output_may_be_cut_off(queue, tmp_path):
    process = subprocess.run(
        f"{sys.executable} -m fsdf_engine.cli config | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=BOUND,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )  # fmt: skip
    assert process.stderr == ""


def test_worker_drains_at_the_first_signal(queue, fsdf):
    push(queue, "linger")
    worker = fsdf("run", "tasks.py")
    until_said(worker, "linger")
    worker.send_signal(signal.SIGTERM)
    said, _ = ending(worker)
    [line] = [line for line in said.splitlines() if "draining" in line]
    assert "threading.py" not in line
    assert "done linger" in said
    assert worker.returncode == 0
    assert sum(default_engine().broker().size(queue)) == 0


def test_signal_that_the_main_thread_has_not_noticed_ends_its_wait(queue, fsdf):
    """As does one that comes just before the main thread blocks: no handler has run by then."""
    push(queue, "signal")
    worker = fsdf("run", "tasks.py")
    assert worker.wait(BOUND) == 0
    assert "draining" in until_said(worker, "draining")


def test_terminating_a_process_that_a_run_has_forked_ends_that_process_only(queue, fsdf):
    push(queue, "fork")
    worker = fsdf("run", "tasks.py")
    assert f"ended by {int(signal.SIGTERM)}" in until_said(worker, "done fork")
    push(queue, "after")
    until_said(worker, "done after")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(BOUND) == 0


def test_worker_ends_at_the_second_signal_and_loses_nothing(queue, fsdf):
    push(queue, "stay")
    worker = fsdf("run", "tasks.py")
    until_said(worker, "stay")
    worker.send_signal(signal.SIGINT)
    until_said(worker, "draining")
    insist(worker, signal.SIGINT)
    said, _ = ending(worker)
    assert worker.returncode == 128 + signal.SIGINT
    assert "done" not in said
    size = default_engine().broker().size(queue)
    assert size.waiting + size.delayed + size.leased == 1


def test_worker_takes_modules_of_packages_and_odd_file_names(tmp_path, fsdf):
    package = tmp_path / "shop" / "orders"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text("from . import __name__ as p\n" + TASKS.format(queue="one"))
    (tmp_path / "2 odd name.py").write_text(TASKS.format(queue="two"))
    push("one", "a")
    push("two", "b")
    worker = fsdf("run", "shop/orders/jobs.py", "2 odd name.py")
    said = until_said(worker, "done")
    said += until_said(worker, "done")
    assert {"done a", "done b"} <= set(said.splitlines())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(BOUND) == 0


def test_file_that_hides_behind_another_module_is_refused(tmp_path, fsdf):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "json.py").write_text(TASKS.format(queue="q"))
    said, _ = fsdf("run", "deep/json.py").communicate(timeout=BOUND)
    assert "deep/json.py has the name of a module" in said
    assert "rename the file" in said


def test_error_in_a_module_shows_its_traceback(tmp_path, fsdf):
    (tmp_path / "broken.py").write_text("import no_such_thing")
    said, _ = fsdf("run", "broken.py").communicate(timeout=BOUND)
    assert "Traceback" in said
    assert "No module named 'no_such_thing'" in said


def test_configuration_beside_the_file_counts(tmp_path, fsdf):
    place = tmp_path / "deep"
    place.mkdir()
    (place / "tasks.py").write_text(TASKS.format(queue="jobs"))
    (place / "distributed_frame_config.py").write_text("LOG_LEVEL = 'loud'")
    said, _ = fsdf("run", "deep/tasks.py").communicate(timeout=BOUND)
    assert f"LOG_LEVEL is 'loud' ({place}/distributed_frame_config.py)" in said


def test_worker_processes_share_a_queue_and_drain(tmp_path, fsdf, monkeypatch):
    place = tmp_path / "deep"
    place.mkdir()
    (place / "tasks.py").write_text(TASKS.format(queue="jobs"))
    path = str(tmp_path / "configured.sqlite")
    (place / "distributed_frame_config.py").write_text(f"SQLITE_PATH = {path!r}\nLOG_LEVEL = 10")
    monkeypatch.delenv("FSDF_SQLITE_PATH")
    default_engine().config.patch({"SQLITE_PATH": path})
    worker = fsdf("run", "deep/tasks.py", "--processes", "2")
    for _ in range(1 if sys.platform == "linux" else 3):  # the children are forked from who has
        until_said(worker, "imported")
    push("jobs", "a", "linger")
    until_said(worker, "linger")
    worker.send_signal(signal.SIGTERM)
    said, _ = ending(worker)
    assert "done linger" in said
    assert worker.returncode == 0
    assert sum(default_engine().broker().size("jobs")) == 0


CHILD = """
import logging, os
from fsdf_engine import task_deco

@task_deco("jobs", concurrent_mode="processes", concurrent_num=1)
def job(what):
    logging.getLogger("mine").debug("%s in a child of %d", what, os.getppid())
"""


def test_child_processes_find_the_tasks_of_a_file_and_log_as_the_worker_does(tmp_path, fsdf):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "children.py").write_text(CHILD)
    push("jobs", "a")
    worker = fsdf("run", "deep/children.py", "--log-level", "DEBUG")
    said = until_said(worker, f"a in a child of {worker.pid}")
    assert "DEBUG mine" in said
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(BOUND) == 0


PATCHES = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import eventlet\neventlet.monkey_patch()\n",
}


@pytest.mark.parametrize("green", PATCHES)
def test_worker_runs_greenlets_that_are_patched_at_the_start(tmp_path, fsdf, green):
    pytest.importorskip(green)
    tasks = TASKS.format(queue="jobs").replace("max_retry", f"concurrent_mode={green!r}, max_retry")
    (tmp_path / "tasks.py").write_text(PATCHES[green] + tasks)
    push("jobs", "linger")
    late, _ = fsdf("run", "tasks.py").communicate(timeout=BOUND)
    assert f"fsdf: the modules patch with {green}; say fsdf run --green {green}" in late
    worker = fsdf("run", "tasks.py", "--green", green)
    until_said(worker, "linger")
    worker.send_signal(signal.SIGTERM)
    said, _ = ending(worker)
    assert "done linger" in said
    assert worker.returncode == 0
