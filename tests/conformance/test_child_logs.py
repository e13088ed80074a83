"""What child processes log is handled by their parent's handlers, whatever those are."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import BOUND

from fsdf_engine.log import relay

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import logging, os, signal, sys
from logging.handlers import RotatingFileHandler
from fsdf_engine import task_deco
from fsdf_engine.log import RunContext

def configure(path="log", **options):
    handler = RotatingFileHandler(path, **options)
    handler.addFilter(RunContext())
    form = "%(levelname)s %(process)d %(name)s %(task_id)s %(message)s"
    handler.setFormatter(logging.Formatter(form))
    logging.basicConfig(handlers=[handler], level=logging.INFO)

{module}

log = logging.getLogger("shop")

@task_deco("q", is_using_rpc_mode=True, retry_backoff=0.001, max_retry_times=1, **{options})
def work(what):
    log.info("<%s>", what)
    log.debug("too quiet")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fail":
        raise ValueError("no luck")
    return os.getpid()

if __name__ == "__main__":
    {main}
    consumer = {consume}
    print(*[result.get(60) for result in work.push_many([{calls}])])
    consumer.stop()
"""
POOL = {
    "options": "dict(concurrent_mode='processes', concurrent_num=2)",
    "consume": "work.consume()",
}
WORKERS = {"options": "{}", "consume": "work.multi_process_consume(2)"}
KINDS = pytest.mark.parametrize("kind", [POOL, WORKERS], ids=["pool", "workers"])


@pytest.fixture
def run(tmp_path):
    """Run the script; return what it prints, what goes to stderr, and its log file."""

    def run(kind, *, module="", main="pass", calls="'hello'"):
        path = tmp_path / "script.py"
        path.write_text(SCRIPT.format(module=module, main=main, calls=calls, **kind))
        done = subprocess.run(
            [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True,
            timeout=BOUND * 5, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        log = "".join(path.read_text() for path in sorted(tmp_path.glob("log*"), reverse=True))
        return done.stdout, done.stderr, log

    return run


@KINDS
@pytest.mark.parametrize("where", ["module", "main"])
def test_records_of_children_reach_a_rotating_file_once(run, kind, where):
    configured = {where: "configure(maxBytes=4000, backupCount=1000)"}
    out, err, log = run(kind, **configured, calls="*[(n,) for n in range(200)]")
    assert err == ""
    lines = re.findall(r"^INFO (\d+) shop (\w+) <(\d+)>$", log, re.M)
    assert sorted(int(number) for _, _, number in lines) == list(range(200))
    assert {pid for pid, _, _ in lines} == set(out.split())
    assert all(len(id) == 32 for _, id, _ in lines)  # the run that logged it
    assert "too quiet" not in log


@KINDS
def test_what_a_child_has_configured_for_itself_stays_its_own(run, kind, tmp_path):
    out, _, log = run(kind, module='configure(f"log-{os.getpid()}")', calls="('hello',)")
    [pid] = out.split()
    assert log.count("<hello>") == 1
    assert "<hello>" in (tmp_path / f"log-{pid}").read_text()


@KINDS
def test_children_of_a_program_without_logging_are_seen(run, kind):
    _, err, _ = run(kind, calls="('hello',)")
    assert re.search(r" INFO fsdf\.queue\.q \d+ queue q: .* starts/s", err)
    assert "<hello>" not in err  # the program's own loggers are left as they are


def test_retries_in_children_are_told_like_others(run):
    kind = {**POOL, "consume": "[work.push('fail'), work.consume()][1]"}
    _, _, log = run(kind, main="configure()", calls="('hello',)")
    assert re.search(r"^WARNING \d+ fsdf\.queue\.q \w+ .* failed in attempt 1 of 2", log, re.M)
    assert re.search(
        r"^ERROR .* given up after 2 attempts: ValueError: no luck \(script", log, re.M
    )
    assert len(re.findall("^ValueError: no luck$", log, re.M)) >= 1


def test_logger_file_of_a_worker_takes_nothing_from_its_parent(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FSDF_LOG_FOLDER", str(tmp_path / "own"))
    kind = {**WORKERS, "options": "dict(create_logger_file=True)"}
    _, _, log = run(kind, main="configure()", calls="('hello',)")
    line = r"fsdf\.queue\.q .*queue q: .* starts/s"
    assert re.search(line, log)
    assert re.search(line, (tmp_path / "own" / "fsdf.queue.q.log").read_text())


def test_runs_of_children_are_told_at_debug(run):
    kind = {**POOL, "options": f"{POOL['options']} | dict(log_level='DEBUG')"}
    _, _, log = run(kind, main="configure()", calls="('hello',)")
    starts, ends = re.findall(r"^DEBUG \d+ fsdf\.queue\.q \w+ task q \w+ (.*)$", log, re.M)
    assert starts == "starts, attempt 1"
    assert ends.startswith("succeeded after 0.")


def test_last_words_of_a_killed_child_are_kept(run):
    kind = {**POOL, "consume": "[work.push('die'), work.consume()][1]"}
    _, _, log = run(kind, main="configure()", calls="('hello',)")
    assert log.count("<die>") >= 1


def test_worker_command_writes_json_for_all_its_processes(tmp_path):
    (tmp_path / "script.py").write_text(
        SCRIPT.format(module="", main="", calls="", options="{}", consume="").partition(
            "if __name__"
        )[0]
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    push = "import script; script.work.push_many([('a',), ('fail',)])"
    subprocess.run([sys.executable, "-c", push], cwd=tmp_path, env=env, check=True)
    command = [sys.executable, "-m", "fsdf_engine.cli", "run", "script.py", "--processes", "2"]
    with subprocess.Popen(
        [*command, "--log-format", "json"], cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE
    ) as worker:
        found = []
        for line in worker.stderr:
            found.append(json.loads(line))
            if found[-1]["level"] == "ERROR":
                worker.terminate()
    [error] = [facts for facts in found if facts["level"] == "ERROR"]
    assert error["exception"].endswith("ValueError: no luck")
    assert (error["queue"], error["attempt"], len(error["task_id"])) == ("q", 1, 32)
    told = {facts["message"] for facts in found if facts["logger"] == "shop"}
    assert told == {"<a>", "<fail>"}


FAILING = """
from fsdf_engine import task_deco

@task_deco("kept", max_retry_times=1)
def kept(n: int):
    raise RuntimeError("no luck")

@task_deco("unkept", max_retry_times=1, keep_failed=False)
def unkept(n: int):
    raise RuntimeError("no luck at all")
"""
ENDS = ("no luck", "no luck at all")


def test_worker_command_tells_what_fails_though_nothing_is_configured(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    push = (
        "import failing; failing.kept.push(1); failing.unkept.push(1);"
        " from fsdf_engine import default_engine; from fsdf_engine.contracts import Outgoing;"
        " default_engine().broker().publish([Outgoing('kept', '', b'no json')])"
    )
    subprocess.run([sys.executable, "-c", push], cwd=tmp_path, env=env, check=True)
    command = [sys.executable, "-m", "fsdf_engine.cli", "run", "failing.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE
    ) as worker:
        lines: list[str] = []
        for line in worker.stderr:
            lines.append(line.rstrip())
            errors = [text.partition(" fsdf.queue.")[2] for text in lines if " ERROR " in text]
            if len(errors) == 3 and {f"RuntimeError: {text}" for text in ENDS} <= set(lines):
                worker.terminate()
    retries = [line for line in lines if " WARNING fsdf.queue." in line]
    assert len(retries) == 2
    assert all("in attempt 1 of 2 and runs again at once: Runtime" in line for line in retries)
    assert [text.split()[0] for text in sorted(errors)] == ["kept", "kept", "unkept"]
    assert sum("given up after 2 attempts" in text for text in errors) == 2
    assert sum("is a dead letter: invalid: JSONDecodeError" in text for text in errors) == 1
    assert sum(text.endswith("see fsdf dead list kept") for text in errors) == 2
    assert [lines.count(f"RuntimeError: {text}") for text in ENDS] == [1, 1]


# ------------------------------------------------------------------ the line between the two


@pytest.fixture
def pair(monkeypatch):
    monkeypatch.setattr(relay, "_handlers_of", lambda name: ())  # not pytest's: both ends are here
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_parent_that_does_not_read_holds_nobody_up_and_learns_what_it_missed(pair, caplog):
    caplog.set_level(logging.INFO)
    ours, theirs = pair
    handler = relay.RelayHandler(theirs, {})
    began = time.monotonic()
    for n in range(100):
        handler.emit(
            logging.makeLogRecord({"name": "far", "levelno": 20, "msg": f"{n} " + "x" * 30_000})
        )
    assert time.monotonic() - began < 5 * relay.PATIENCE  # one wait, not a hundred
    thread = relay.listen(ours)
    handler.flush()
    handler.flush()  # the number of those dropped
    theirs.close()
    thread.join(BOUND)
    numbers = [int(r.getMessage().split()[0]) for r in caplog.records if r.name == "far"]
    assert numbers == list(range(len(numbers)))
    assert 10 < len(numbers) < 90
    [dropped] = [r.getMessage() for r in caplog.records if r.name == "fsdf.log"]
    assert dropped.startswith(f"{100 - len(numbers)} log records were dropped")


def test_what_travels_comes_back_as_it_was(pair, caplog):
    caplog.set_level(logging.INFO)
    ours, theirs = pair
    handler = relay.RelayHandler(theirs, {})
    try:
        raise ValueError("no\udcff")
    except ValueError:
        info = sys.exc_info()
    made = logging.LogRecord("far", 40, __file__, 7, "%s %d", ("ж\nb", 3), info, "fn")
    made.size, made.odd = 1 << 70, {object: 1}
    handler.handle(made)
    theirs.close()
    relay.listen(ours).join(BOUND)
    [record] = [r for r in caplog.records if r.name == "far"]
    assert record.getMessage() == "ж\nb 3"
    assert (record.levelno, record.pathname, int(record.lineno)) == (40, __file__, 7)
    assert record.exc_text.endswith("ValueError: no\\udcff")


def test_half_a_line_of_a_killed_child_is_dropped(pair, caplog):
    ours, theirs = pair
    theirs.sendall(b'{"name":"far"')
    theirs.close()
    relay.listen(ours).join(BOUND)
    assert caplog.records == []
