"""What signals do to a process that consumes, wherever `consume()` was called: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import BOUND, ending, free_port, insist, signal_each, until

from fsdf_engine import StopSignals, default_engine
from fsdf_engine.core import signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests signal processes")
ROOT = Path(__file__).parent.parent.parent
TASK = """
import asyncio, os, signal, sys, threading
from fsdf_engine import default_engine, task_deco

@task_deco("work", concurrent_num=1, concurrent_mode={mode!r}, lease=5.0{more})
def work(seconds: float) -> None:
    os.write(1, b"started\\n")
    threading.Event().wait(seconds)
    os.write(1, b"ended\\n")
"""
# How the main thread spends its time after, or while, a consumer is started somewhere.
PLACES = {
    "at the end of the script": "work.consume()",
    "in a coroutine": """
async def main():
    try:
        work.consume()
        await asyncio.Event().wait()
    finally:
        os.write(1, b"unwound\\n")
asyncio.run(main())
""",
    "in a thread that main joins": """
thread = threading.Thread(target=lambda: work.consume().join())
thread.start()
thread.join()
""",
    "in a thread beside a loop": """
started = threading.Thread(target=work.consume)
started.start()
started.join()
asyncio.run(asyncio.Event().wait())
""",
    "in the foreground": "default_engine().run()",
    "in a thread of a loop": """
async def main():
    await asyncio.to_thread(work.consume)
    await asyncio.Event().wait()
asyncio.run(main())
""",
}
OWN_HANDLER = """
def handle(number, frame):
    os.write(1, b"mine\\n")
    done.set()
done = threading.Event()
signal.signal(signal.SIGTERM, handle)
"""
# A server ends by a handler of its own. Both kinds of it are the program's: we are never asked.
SERVERS = {
    "its own handler": OWN_HANDLER + "work.consume()\nwhile not done.wait(0.01): pass",
    "a handler set later": "work.consume()" + OWN_HANDLER + "while not done.wait(0.01): pass",
    "a loop's handler": """
async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    work.consume()
    await done.wait()
asyncio.run(main())
""",
    "a loop's handler set later": """
async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    await done.wait()
work.consume()
asyncio.run(main())
""",
}


@pytest.fixture
def start(tmp_path, interpret):
    """Start a program as a process of its own."""

    def start(*command, code="", mode="threads", more=""):
        (tmp_path / "program.py").write_text(TASK.format(mode=mode, more=more) + code)
        return interpret(*(command or ["program.py"]))

    return start


def tree(process):
    parent = psutil.Process(process.pid)
    return [*parent.children(recursive=True), parent]


def push(*calls):
    from fsdf_engine import get_publisher

    publisher = get_publisher("work")
    for seconds in calls:
        publisher.push(seconds=seconds)


def size():
    return default_engine().broker().size("work")


def ended(process):
    """Wait for the end; return what was said, without the first line, and the exit code."""
    said, errors = ending(process)
    assert "leaked" not in errors
    return said.splitlines(), process.returncode, errors


def working(process):
    """Wait for a run, and for our handlers: a main thread sets them when it runs next."""
    assert process.stdout.readline() == "started\n"
    status = Path(f"/proc/{process.pid}/status")

    def catches():
        [caught] = [line for line in status.read_text().splitlines() if "SigCgt" in line]
        return int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1

    if status.exists():
        until(catches)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", PLACES)
def test_first_signal_drains_and_ends_the_process(start, place, number):
    push(0.3, 60)
    process = start(code=PLACES[place])
    working(process)
    process.send_signal(number)
    said, code, errors = ended(process)
    assert [line for line in said if line != "unwound"] == ["ended"], errors
    assert ("unwound" in said) == (place == "in a coroutine")
    assert code in (0, -number), errors
    assert tuple(size()) == (1, 0, 0, 0)


@pytest.mark.parametrize("place", PLACES)
def test_second_signal_ends_at_once_and_the_message_goes_back(start, place):
    push(60)
    process = start(code=PLACES[place])
    working(process)
    process.send_signal(signal.SIGTERM)
    assert any("draining" in line for line in iter(process.stderr.readline, ""))
    insist(process, signal.SIGTERM)
    assert "ended" not in ended(process)[0]
    until(lambda: tuple(size()) == (1, 0, 0, 0))


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
)
@pytest.mark.parametrize("code", [0, 3])
def test_script_at_its_end_keeps_its_code_at_a_second_signal(start, numbers, code):
    push(60)
    process = start(code=f"work.consume()\nsys.exit({code})")
    working(process)
    process.send_signal(numbers[0])
    assert any("draining" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(numbers[1])
    assert ended(process)[:2] == ([], code)
    until(lambda: tuple(size()) == (1, 0, 0, 0))


def test_same_signal_twice_is_one(start):
    """Process managers signal the process, and then its group."""
    push(0.3)
    process = start(code=PLACES["at the end of the script"])
    assert process.stdout.readline() == "started\n"
    os.kill(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    assert ended(process)[:2] == (["ended"], 0)


def test_command_takes_the_same_signal_twice_for_one_and_another_for_the_second():
    waits = StopSignals()
    try:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        waits.tell_end()
        assert [waits.next(), waits.next(), waits.next()] == [signal.SIGTERM, signal.SIGINT, 0]
    finally:
        waits.close()


@pytest.mark.parametrize("server", SERVERS)
def test_end_of_a_program_with_handlers_of_its_own_drains(start, server):
    """No further run starts: the program's main thread has ended."""
    push(0.5, 60)
    process = start(code=SERVERS[server])
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    said, code, errors = ended(process)
    assert ([line for line in said if line != "mine"], code) == (["ended"], 0), errors
    assert tuple(size()) == (1, 0, 0, 0)


def test_script_with_a_handler_of_its_own_goes_on_after_its_last_line(start):
    process = start(code=OWN_HANDLER + "work.consume()")
    push(0.0)
    assert process.stdout.readline() == "started\n"
    assert process.stdout.readline() == "ended\n"
    push(0.3)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    assert sorted(ended(process)[0]) == ["ended", "mine"]


def test_interactive_session_keeps_its_handlers():
    code = (
        "from fsdf_engine import task_deco; import signal\n"
        "f = task_deco('q', broker_kind='memory')(print); handle = f.consume()\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "handle.stop()\n"
    )
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=code, capture_output=True, text=True, timeout=BOUND,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert "True" in done.stdout, done.stderr


COMMANDS = {
    "fsdf run": ("threads", []),
    "fsdf run, supervised": ("threads", ["--processes", "2"]),
    "fsdf run, PROCESSES": ("processes", []),
    "script, PROCESSES": ("processes", None),
    "script, supervised": ("threads", None),
}


@pytest.mark.parametrize("how", COMMANDS)
def test_signal_to_every_process_of_a_service_drains_it(start, how):
    """As service managers do: parent, children and what Python starts beside them."""
    push(1.0)
    mode, arguments = COMMANDS[how]
    command = ["-m", "fsdf_engine.cli", "run", "program.py", *(arguments or [])]
    call = "multi_process_consume(2)" if "supervised" in how else "consume()"
    guarded = f"\nif __name__ == '__main__':\n    work.{call}\n"
    process = start(*(command if arguments is not None else []), code=guarded, mode=mode)
    assert process.stdout.readline() == "started\n"
    signal_each(tree(process)[::-1], signal.SIGTERM)
    assert ended(process)[:2] == (["ended"], 0)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_second_signal_leaves_nothing_of_the_children_behind(start, method):
    push(60)
    process = start(
        "-m", "fsdf_engine.cli", "run", "program.py",
        mode="processes", more=f", process_start_method={method!r}",
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    family = tree(process)
    process.send_signal(signal.SIGTERM)
    assert any("draining" in line for line in iter(process.stderr.readline, ""))
    insist(process, signal.SIGTERM)
    assert ended(process)[:2] == ([], 128 + signal.SIGTERM)
    until(lambda: not any(map(psutil.pid_exists, [each.pid for each in family])))


def test_worker_of_a_web_server_drains_at_its_end(start):
    pytest.importorskip("gunicorn")
    push(0.5, 60)
    application = """
work.consume()
def application(environ, start_response):
    start_response("200 OK", [])
    return []
"""
    address = f"127.0.0.1:{free_port()}"
    process = start("-m", "gunicorn", "-b", address, "program:application", code=application)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (["ended"], 0)
    assert tuple(size()) == (1, 0, 0, 0)


def test_handlers_are_never_set_over_the_users_own(monkeypatch):
    monkeypatch.setattr(signals, "_stops", [])
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    own = signal.getsignal(signal.SIGTERM)
    try:
        signals.on_signals(lambda drain: None)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
        signals.give_back()


BLOCKED = """
import logging, os, threading
from fsdf_engine import task_deco

class Blocking(logging.Handler):
    def emit(self, record):
        if armed.is_set():
            threading.Event().wait()

armed = threading.Event()
logging.getLogger().addHandler(Blocking())

@task_deco("blocked")
def work(n):
    armed.set()
    os.write(1, b"runs\\n")
    logging.getLogger("mine").error("nobody reads this")
"""


@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
def test_second_signal_ends_a_worker_whose_log_nobody_reads(tmp_path, more):
    (tmp_path / "blocked.py").write_text(BLOCKED)
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "FSDF_SQLITE_PATH": str(tmp_path / "q.db"),
    }  # fmt: skip
    push = "import blocked; blocked.work.push(1)"
    subprocess.run([sys.executable, "-c", push], env=environment, cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "fsdf_engine.cli", "run", "blocked.py", *more]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as worker:
        assert worker.stdout.readline() == b"runs\n"
        worker.terminate()
        try:
            insist(worker, signal.SIGTERM)
        finally:
            worker.kill()
