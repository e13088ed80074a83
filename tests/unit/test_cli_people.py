"""The command `fsdf` before a person: hints, questions, what is watched, whose fault it is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import BOUND, until

from fsdf_engine.cli import main, progress
from fsdf_engine.contracts import Outgoing
from fsdf_engine.engine import default_engine
from fsdf_engine.outcomes import DeadLetter

ROOT = Path(__file__).parent.parent.parent
FSDF = [sys.executable, "-m", "fsdf_engine.cli"]
MB = 1 << 20


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def broker():
    return default_engine().broker()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def fill(broker, queue, waiting=0, dead=0):
    """Let a queue hold so many of each, the dead ones in the order of their numbers."""
    broker.publish([Outgoing(queue, f"d{n}", b"%d" % n) for n in range(dead)])
    sub = broker.subscribe(queue, lease=30.0)
    while found := sub.fetch(500, MB):
        sub.settle([(d.lease, DeadLetter(f"bad {d.body.decode()}")) for d in found])
    sub.close()
    broker.publish([Outgoing(queue, f"w{n}", b"{}") for n in range(waiting)])


def run(*arguments, **options):
    """Run the command as a process of its own, to its end."""
    return subprocess.run(
        [*FSDF, *arguments], capture_output=True, text=True, timeout=BOUND,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


def said(capsys, *arguments, code=0):
    assert main(arguments) == code
    return capsys.readouterr().out


def test_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"fsdf {version('fsdf')} (Python 3.")


# ---------------------------------------------------------------- hints


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("sizes q", "unknown command 'sizes'; did you mean 'size'?"),
        (
            "xyzzy",
            "unknown command 'xyzzy'; there are cancel, celery, config, dead, init, migrate, purge,"
            " run, size, sql",
        ),
        ("dead lst q", "unknown command 'lst'; did you mean 'list'?"),
        ("--verion", "did you mean '--version'?"),
        ("size --josn", "did you mean '--json'?"),
        ("run x.py --proceses 2", "did you mean '--processes'?"),
        ("run x.py --proc 2", "did you mean '--processes'?"),
        ("run x.py --green gevnt", "--green 'gevnt'; did you mean 'gevent'?"),
        ("run x.py --grace -1", "'-1' must be seconds, at least 0"),
        ("dead list --limit 0", "'0' must be a whole number, at least 1"),
        ("dead list --limit ten", "'ten' must be a whole number, at least 1"),
    ],
)
def test_wrong_spelling_is_answered_with_the_right_one(capsys, given, hint):
    with pytest.raises(SystemExit) as ended:
        main(given.split())
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("usage: fsdf")
    assert lines[-1].endswith(hint)


def test_wrong_variable_is_told_by_every_command_that_it_means_nothing_to(monkeypatch, capsys):
    monkeypatch.setenv("FSDF_LEASE", "abc")
    for given in ("size q", "purge q", "dead list", "cancel q 1", "init", "sql schema", "run x.py"):
        assert main(given.split()) == 2, given
        assert capsys.readouterr().err == (
            "fsdf: LEASE is 'abc' (environment FSDF_LEASE): must be seconds between 1 and 86400\n"
        )


@pytest.mark.parametrize("given", [[], ["dead"]])
def test_command_alone_shows_what_there_is(capsys, given):
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.search("^    list  " if given else "^    size  ", told, re.MULTILINE)


@pytest.mark.parametrize("given", [["-h"], ["help"]])
def test_help_names_the_exit_codes(capsys, given):
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["size", "purge --yes", "dead list", "dead purge --yes"])
def test_queue_that_holds_nothing_may_be_misspelt(broker, capsys, command):
    fill(broker, "orders", waiting=1, dead=1)
    main([*command.split(), "oders"])
    there = f"queue 'oders' holds nothing ({broker.address})"
    assert f"{there}; did you mean 'orders'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("taks.py", "there is no file taks.py; did you mean 'tasks.py'?"),
        ("./tasks", "there is no file ./tasks; did you mean 'tasks.py'?"),
        ("taks", "there is no module 'taks' in {here}; did you mean 'tasks.py'?"),
        ("xyzzy", "there is no module 'xyzzy' in {here}; give a module's name or a .py file"),
    ],
)
def test_module_that_is_missing_may_be_misspelt(here, place, hint):
    (here / "tasks.py").touch()
    done = run("run", place)
    assert (done.returncode, done.stderr) == (2, f"fsdf: {hint.format(here=here)}\n")


# ---------------------------------------------------------------- every queue


def test_size_without_names_takes_every_queue(broker, capsys):
    assert said(capsys, "size").startswith("no queue holds anything (/")
    assert json.loads(said(capsys, "size", "--json")) == []
    fill(broker, "mails", waiting=2)
    fill(broker, "orders", dead=1)
    assert [line.split() for line in said(capsys, "size").splitlines()[1:]] == [
        ["mails", "2", "0", "0", "0"],
        ["orders", "0", "0", "0", "1"],
    ]


def test_dead_list_without_names_takes_every_queue_the_newest_first(broker, capsys):
    for queue in ("mails", "orders", "mails"):
        fill(broker, queue, dead=2)
    found = json.loads(said(capsys, "dead", "list", "--json"))
    assert [(row["queue"], row["body"]) for row in found] == [
        ("mails", "1"), ("mails", "0"), ("orders", "1"), ("orders", "0"), ("mails", "1"),
        ("mails", "0"),
    ]  # fmt: skip
    listed = said(capsys, "dead", "list", "--limit", "2", "--offset", "1").splitlines()
    assert listed[0].split() == ["queue", "id", "task_id", "died_at", "reason", "body"]
    assert [line.split()[0] for line in listed[1:3]] == ["mails", "orders"]
    assert listed[3] == "(2 of 6)"
    assert len(json.loads(said(capsys, "dead", "list", "orders", "--json"))) == 2


# ---------------------------------------------------------------- watching


@contextlib.contextmanager
def watching(*arguments, terminal=False):
    """Start the command; yield it and what it has written so far."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [*FSDF, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    written = bytearray()

    def read():
        with contextlib.suppress(OSError):  # how a terminal ends
            while data := os.read(ours, 4096):
                written.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield process, written
    finally:
        process.kill()
        process.wait()
        thread.join()
        os.close(ours)


def test_watch_appends_lines_where_no_terminal_is(broker):
    fill(broker, "q", waiting=1)
    with watching("size", "--watch", "0.1") as (process, written):
        until(lambda: b"  q  waiting 1  delayed 0  leased 0  dead 0\n" in written)
        fill(broker, "q", waiting=1, dead=1)
        until(lambda: b"  q  waiting 1  delayed 0  leased 0  dead 2\n" in written)
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == 0
    assert b"\x1b" not in written
    assert b"Traceback" not in written


def test_watch_writes_json_for_programs(broker):
    fill(broker, "q", waiting=1)
    with watching("size", "q", "--json", "--watch", "0.1") as (_, written):
        until(lambda: written.count(b"\n") > 2)
    first = json.loads(written.splitlines()[0])
    assert first["queues"] == [{"queue": "q", "waiting": 1, "delayed": 0, "leased": 0, "dead": 0}]


def test_watch_draws_in_place_on_a_terminal(broker):
    fill(broker, "q", waiting=1)
    with watching("size", "--watch", "0.1", terminal=True) as (process, written):
        until(lambda: b"q      1 " in written)
        broker.publish([Outgoing("q", "2", b"{}")])
        until(lambda: b"q      2 " in written)
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == 0
    assert b"\x1b[1A" in written  # the cursor went up: the same lines were written anew


@pytest.mark.parametrize("given", [["--watch", "a", "b"], ["a", "b", "--watch"]])
def test_watch_may_stand_before_the_names_of_queues(given):
    with watching("size", *given) as (_, written):
        until(lambda: written.count(b"\n") >= 2)
    assert [line.split()[1] for line in written.splitlines()[:2]] == [b"a", b"b"]


def test_watch_of_no_time_is_refused(capsys):
    assert main(["size", "--watch", "0"]) == 2
    assert "--watch 0: give at least 0.1 seconds" in capsys.readouterr().err


# ---------------------------------------------------------------- questions

QUESTIONS = {
    ("purge", "q"): "delete what waits in queue 'q' (1)?",
    ("dead", "purge", "q"): "delete the dead letters of queue 'q' (1)?",
    ("dead", "replay", "q"): "replay all dead letters of queue 'q' (1)?",
}


@pytest.mark.parametrize("command", QUESTIONS)
def test_what_changes_a_whole_queue_asks_alike(broker, capsys, monkeypatch, command):
    fill(broker, "q", waiting=1, dead=1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(command) == 2
    assert "there is no terminal to ask; say --yes" in capsys.readouterr().err
    for answer in ("", "n", "what?"):
        monkeypatch.setattr(sys, "stdin", Terminal(answer + "\n"))
        assert main(command) == 1
        assert f"{QUESTIONS[command]} [y/N]" in capsys.readouterr().out
    assert broker.size("q") == (1, 0, 0, 1)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert main(command) == 0
    assert broker.size("q") != (1, 0, 0, 1)


@pytest.mark.parametrize("command", QUESTIONS)
@pytest.mark.parametrize("yes", ["--yes", "-y"])
def test_yes_answers_every_question(broker, capsys, command, yes):
    fill(broker, "q", waiting=1, dead=1)
    assert main([*command, yes]) == 0
    assert broker.size("q") != (1, 0, 0, 1)


# ---------------------------------------------------------------- progress


def test_nothing_is_drawn_for_what_is_quick_or_where_no_terminal_is(monkeypatch):
    for stderr in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress.progress("replaying", 2) as tell:
            tell(2)
        assert stderr.getvalue() == ""


def test_progress_is_drawn_on_a_terminal(monkeypatch):
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress("replaying", 200) as tell:
        tell(100)
        until(lambda: "100/200" in sys.stderr.getvalue())
        tell(50)
        until(lambda: "150/200" in sys.stderr.getvalue())
    assert "replaying" in sys.stderr.getvalue()


def test_step_without_parts_is_seen_to_go_on(monkeypatch):
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress("deleting 7 messages"):
        until(lambda: "0:00:0" in sys.stderr.getvalue())
    assert "deleting 7 messages" in sys.stderr.getvalue()


def test_replay_in_steps_keeps_the_order_of_a_replay_in_one(broker, capsys, monkeypatch):
    fill(broker, "q", dead=1200)
    told = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        patch.setattr(progress._Shown, "advance", lambda self, more: told.append(more))
        assert main(["dead", "replay", "q", "--yes"]) == 0
    assert capsys.readouterr().out == "replayed 1200\n"
    assert told == [500, 500, 200]
    sub = broker.subscribe("q", lease=30.0)
    found = []
    while some := sub.fetch(500, MB):
        found += [int(delivery.body) for delivery in some]
    assert found == list(range(1200))
    sub.close()


# ---------------------------------------------------------------- whose fault

BROKEN = {
    "raises": ("def f():\n    raise ValueError('mine')\nf()\n", "ValueError: mine", 2),
    "is no Python": ("def f(:\n", "SyntaxError", 0),
    "declares wrongly": (
        "from fsdf_engine import task_deco\n@task_deco('q', qps='many')\ndef f(): ...\n",
        "option qps='many' is not a number",
        1,
    ),
    "lacks a module": ("import no_such_thing\n", "No module named 'no_such_thing'", 1),
}


@pytest.mark.parametrize("how", BROKEN)
def test_module_that_fails_shows_the_users_frames_only(here, how):
    code, told, frames = BROKEN[how]
    (here / "tasks.py").write_text(code)
    done = run("run", "tasks.py")
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.splitlines()[-1].startswith("fsdf: tasks.py cannot be imported; ")
    shown = re.findall(r'^  File "(.*)", line \d+, in ', done.stderr, re.MULTILINE)
    assert shown == [str(here / "tasks.py")] * frames


def test_frames_between_two_exceptions_are_the_users_only(here):
    (here / "lower.py").write_text("import importlib\nimportlib.import_module('no_such_thing')\n")
    (here / "tasks.py").write_text(
        "try:\n    import lower\nexcept ImportError as error:\n    raise OSError('x') from error"
    )
    done = run("run", "tasks.py")
    assert done.returncode == 2
    shown = re.findall(r'^  File "(.*)", line', done.stderr, re.MULTILINE)
    assert shown == [str(here / n) for n in ("tasks.py", "lower.py", "tasks.py")]


@pytest.mark.parametrize("command", [("config",), ("size",), ("run", "tasks.py")])
def test_configuration_that_fails_shows_its_frames_only(here, command):
    (here / "tasks.py").write_text(
        "from fsdf_engine import task_deco\n@task_deco('q')\ndef f(): ...\n"
    )
    (here / "distributed_frame_config.py").write_text("def f():\n    return 1 / 0\nLEASE = f()\n")
    done = run(*command)
    assert done.returncode == 2
    shown = re.findall(r'^  File "(.*)", line', done.stderr, re.MULTILINE)
    assert shown == [str(here / "distributed_frame_config.py")] * 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fsdf: ")
    assert "repair or remove it" in last


def test_worker_processes_name_their_queues(here):
    (here / "tasks.py").write_text(
        "from fsdf_engine import task_deco\n"
        "@task_deco('one')\ndef f(): ...\n@task_deco('two')\ndef g(): ...\n"
    )
    with watching("run", "tasks.py", "--processes", "2") as (process, written):
        until(lambda: b"consuming queue one in 2 processes" in written)
        until(lambda: b"consuming queue two in 2 processes" in written)
        until(lambda: written.count(b"consuming queue one from sqlite /") == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0
