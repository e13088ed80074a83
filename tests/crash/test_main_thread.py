"""Runs in a process's main thread: where they are, and what limits and signals do to them there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from helpers import ending, insist, until

from fsdf_engine import default_engine, get_publisher

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests signal processes")
ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import asyncio, hashlib, os, signal, sys, threading, time
from fsdf_engine import default_engine, task_deco

def say(text):
    os.write(1, text.encode() + b"\\n")

@task_deco("main", concurrent_mode="inline", max_retry_times=0{more})
def work(what: str) -> None:
    say("main" if threading.current_thread() is threading.main_thread() else "elsewhere")
    if what == "short":
        time.sleep(0.3)  # a run that a stop waits for
    elif what == "long":
        time.sleep(60)
    elif what == "loop":
        async def listen():
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, say, "never")
        asyncio.run(listen())
    elif what == "handle":
        signal.signal(signal.SIGTERM, lambda *_: say("handled"))
    elif what == "tidy":
        try:
            time.sleep(60)
        finally:
            time.sleep(0.5)  # tidying that lasts
    elif what == "endless":
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1 << 30)
    elif what == "fork" and os.fork() == 0:
        sys.exit(3)
    elif what == "fork":
        say(str(os.waitstatus_to_exitcode(os.wait()[1])))
    say("ended")

if __name__ == "__main__":
    {call}
    say("went on")
"""
COMMAND = ["-m", "fsdf_engine.cli", "run", "program.py"]
# How it is started: the command's arguments, and what a script does in place of them.
PLACES = {
    "fsdf run": (COMMAND, "", ""),
    "fsdf run, supervised": ([*COMMAND, "--processes", "2"], "", ""),
    "Engine.run": (["program.py"], "default_engine().run()", ""),
    "consume": (["program.py"], "work.consume()", ", schedule_tasks_on_main_thread=True"),
}
SCRIPTS = ("Engine.run", "consume")


@pytest.fixture
def start(tmp_path, interpret):
    """Start a program in one of the `PLACES`."""

    def start(place, more=""):
        arguments, call, option = PLACES[place]
        code = PROGRAM.replace("{more}", option + more).replace("{call}", call or "pass")
        (tmp_path / "program.py").write_text(code)
        return interpret(*arguments)

    return start


def push(*calls):
    publisher = get_publisher("main")
    for what in calls:
        publisher.push(what=what)


def said(process, *lines):
    for line in lines:
        assert process.stdout.readline() == f"{line}\n"


def ended(process):
    """Wait for the end; return what was said, and the exit code."""
    text, errors = ending(process)
    return text.splitlines(), process.returncode, errors


def size():
    return tuple(default_engine().broker().size("main"))


@pytest.mark.parametrize("place", PLACES)
def test_first_signal_drains_what_runs_in_the_main_thread(start, place):
    process = start(place)
    push("short")
    said(process, "main", "ended")
    push("short")
    said(process, "main")
    process.send_signal(signal.SIGTERM)
    lines, code, errors = ended(process)
    assert (lines, code) == (["ended"], 0), errors
    assert size() == (0, 0, 0, 0)


@pytest.mark.parametrize("place", PLACES)
def test_second_signal_ends_what_waits_in_the_main_thread(start, place):
    push("long")
    process = start(place)
    said(process, "main")
    process.send_signal(signal.SIGTERM)
    assert any("draining" in line for line in iter(process.stderr.readline, ""))
    insist(process, signal.SIGTERM)
    lines, code, errors = ended(process)
    assert not lines, errors
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM), errors  # one more came at its very end
    until(lambda: size() == (1, 0, 0, 0))


@pytest.mark.parametrize("place", SCRIPTS)
def test_ctrl_c_is_raised_once_the_main_thread_is_drained(start, place):
    push("short")
    process = start(place)
    said(process, "main")
    process.send_signal(signal.SIGINT)
    lines, code, errors = ended(process)
    assert (lines, code) == (["ended"], -signal.SIGINT), errors
    assert "KeyboardInterrupt" in errors


@pytest.mark.parametrize("place", PLACES)
def test_limit_ends_a_call_that_waits_in_the_main_thread(start, place):
    push("long", "short")
    process = start(place, more=", function_timeout=1.0")
    said(process, "main", "main", "ended")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == ([], 0)
    assert size() == (0, 0, 0, 1)


@pytest.mark.parametrize("place", PLACES)
def test_run_that_tidies_up_after_its_limit_holds_up_the_others_and_nothing_else(start, place):
    push("tidy", "short")
    process = start(place, more=", function_timeout=1.0")
    said(process, "main", "main", "ended")
    process.send_signal(signal.SIGTERM)
    lines, code, errors = ended(process)
    assert (lines, code) == ([], 0), errors
    assert "cannot be ended" not in errors
    assert size() == (0, 0, 0, 1)


@pytest.mark.parametrize("place", PLACES)
def test_signals_drain_after_a_run_has_had_them_written_to_a_loop(start, place):
    push("loop")
    process = start(place)
    said(process, "main", "ended")
    push("short")
    said(process, "main")
    if "supervised" in place:  # what such a child hears of its own
        for child in psutil.Process(process.pid).children():
            if child.num_threads() > 1:  # a zygote has one
                child.terminate()
        said(process, "ended")
    process.send_signal(signal.SIGTERM)
    lines, code, errors = ended(process)
    assert (lines, code) == ([] if "supervised" in place else ["ended"], 0), errors


@pytest.mark.parametrize("place", SCRIPTS)
def test_handler_of_a_run_is_called_and_the_worker_drains(start, place):
    push("handle")
    process = start(place)
    said(process, "main", "ended")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (["handled"], 0)


@pytest.mark.parametrize("place", PLACES)
def test_child_that_comes_back_from_a_fork_in_the_main_thread_ends(start, place):
    push("fork")
    process = start(place)
    said(process, "main", "3", "ended")
    push("short")
    said(process, "main", "ended")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == ([], 0)


@pytest.mark.parametrize("place", PLACES)
def test_run_that_cannot_be_ended_keeps_no_process(start, place):
    push("endless")
    process = start(place, more=", function_timeout=0.5")
    said(process, "main")
    if "supervised" in place:  # it is replaced, and asked for by nobody
        assert any("started again" in line for line in iter(process.stderr.readline, ""))
    else:
        assert any("cannot be ended" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    lines, code, errors = ended(process)
    assert (lines, code) == ([], 0), errors
    assert size() == (0, 0, 0, 1)
