"""Processes of tests that kill them; none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import signal_each

ROOT = Path(__file__).parent.parent.parent
SQL = ("postgresql", "mysql")


@pytest.fixture(params=["sqlite", "redis_ack", "redis_stream", "redis_brpoplpush"])
def broker(request, monkeypatch):
    """The name of a broker that outlives its workers, its data being the test's own.

    `postgresql` and `mysql` are the SQL broker there.
    """
    if request.param.startswith("redis"):
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    elif request.param in SQL:
        url = request.getfixturevalue(f"{request.param}_url")
        monkeypatch.setenv("FSDF_SQLALCHEMY_URL", url)
        return "sqlalchemy"
    return request.param


@pytest.fixture
def spawn(request, tmp_path):
    """`spawn(broker, lease, *more)` -> a process of the module's WORKER, for `spawn.ledger`."""
    processes = []

    def spawn(broker, lease, *more):
        script = str(request.module.WORKER)
        command = [sys.executable, script, broker, str(spawn.ledger), str(lease), *more]
        processes.append(subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL))
        return processes[-1]

    spawn.ledger = tmp_path / "ledger"
    yield spawn
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def interpret(tmp_path):
    """`interpret(*arguments)` -> a Python in a session and in the folder of the test's own."""
    started = []

    def interpret(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started.append(process)
        return process

    yield interpret
    for process in started:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            signal_each([*family, process], signal.SIGKILL)
        process.communicate()
