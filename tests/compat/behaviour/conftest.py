"""Programs that say `import celery`, and whoever that is.

It is fsdf, unless FSDF_BEHAVIOUR_PYTHON names the interpreter of an environment that has Celery
itself: the same assertions then hold there, but for those of test_pains. FSDF_BEHAVIOUR_POOL
names the workers' pool, FSDF_BEHAVIOUR_BROKER the broker (redis, rabbitmq, postgresql or mysql),
and FSDF_BEHAVIOUR_RESULTS where results are (redis, postgresql or mysql).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import BOUND, RedisServer
from own_servers import empty_mariadb, empty_postgresql

from fsdf_compat import _alias

PYTHON = os.environ.get("FSDF_BEHAVIOUR_PYTHON", "")
POOL = os.environ.get("FSDF_BEHAVIOUR_POOL", "threads")
BROKER = os.environ.get("FSDF_BEHAVIOUR_BROKER", "redis")
RESULTS = os.environ.get("FSDF_BEHAVIOUR_RESULTS", "redis")
# What a client does is sent to it line by line; it answers with the JSON of `said`.
CLIENT = """
import json, sys, traceback
out, sys.stdout = sys.stdout, sys.stderr
from proj import *
for line in sys.stdin:
    space = dict(globals())
    try:
        exec(json.loads(line), space)
        answer = {"said": space.get("said")}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), file=out, flush=True)
"""
HEAD = """
import os, time
from celery import Celery
app = Celery("proj", broker={url!r}, backend={backend!r})
HERE = {folder!r}

def note(*words):
    with open(HERE + "/notes", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")
"""


def environment() -> dict[str, str]:
    if PYTHON:
        return {**os.environ, "FSDF_AS_CELERY": "0"}
    return {**os.environ, **_alias.environment()}


class World:
    """A project's folder with proj.py, and the processes that have been started in it."""

    def __init__(self, folder: Path, url: str, results: str) -> None:
        self.folder, self.url, self.results = folder, url, results
        self.processes: list[subprocess.Popen[str]] = []
        self._client: subprocess.Popen[str] | None = None

    def write(self, code: str, backend: str | None = "") -> None:
        """Write proj.py; `app` and `note` are there."""
        backend = self.results if backend == "" else backend
        head = HEAD.format(url=self.url, backend=backend, folder=str(self.folder))
        (self.folder / "proj.py").write_text(head + textwrap.dedent(code))

    def start(self, *arguments: str, **pipes: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PYTHON or sys.executable, *arguments],
            cwd=self.folder, env=environment(), text=True, stdout=subprocess.PIPE, **pipes,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a worker of four slots, unless arguments say otherwise; it is ready."""
        pool = () if "-P" in arguments else ("-P", POOL, "-c", "4")
        words = "-m", "celery", "-A", "proj", "worker", "-l", "INFO", *pool, *arguments
        worker = self.start(*words, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        assert worker.stdout is not None
        said: list[str] = []
        for line in worker.stdout:
            said.append(line)
            if "ready." in line:
                break
        assert worker.poll() is None, "".join(said)
        threading.Thread(target=worker.stdout.read, daemon=True).start()
        return worker

    def ask(self, code: str) -> Any:
        """Run code in a client of the project; return its `said`."""
        if self._client is None:
            self._client = self.start("-c", CLIENT, stdin=subprocess.PIPE)
        assert self._client.stdin is not None and self._client.stdout is not None
        self._client.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
        self._client.stdin.flush()
        told = json.loads(self._client.stdout.readline())
        assert "error" not in told, told["error"]
        return told["said"]

    def notes(self) -> list[str]:
        """Return what tasks have noted so far."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(BOUND)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    made.start()
    yield made
    made.kill()


def _place(request: pytest.FixtureRequest, redis: RedisServer, kind: str, before: str) -> str:
    """Return the URL of a place of this process, with nothing in it."""
    if kind == "redis":
        return redis.url
    if kind == "rabbitmq":
        url, api = request.getfixturevalue("rabbitmq_server")
        api.empty(url.rpartition("/")[2])
        return url
    server = request.getfixturevalue(f"{kind}_server")
    database = f"behaviour_{before[:-1]}_{os.getpid()}"
    {"postgresql": empty_postgresql, "mysql": empty_mariadb}[kind](server, database)
    return f"{before}{server.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="module")
def new_world(
    request: pytest.FixtureRequest, server: RedisServer
) -> Callable[[Path], Iterator[World]]:
    """Make a project in a folder, and end its processes."""

    def made(folder: Path) -> Iterator[World]:
        import redis

        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        place = partial(_place, request, server)
        world = World(folder, place(BROKER, "sqla+"), place(RESULTS, "db+"))
        yield world
        world.close()

    return made


@pytest.fixture
def world(tmp_path: Path, new_world: Callable[[Path], Iterator[World]]) -> Iterator[World]:
    """A project of the test's own."""
    yield from new_world(tmp_path)


@pytest.fixture(scope="module")
def ask(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_world: Callable[[Path], Iterator[World]],
) -> Iterator[Callable[[str], Any]]:
    """Run code in a client of the module's PROJECT, which has a worker; return its `said`."""
    worlds = new_world(tmp_path_factory.mktemp("project"))
    made = next(worlds)
    made.write(request.module.PROJECT)
    made.worker()
    yield made.ask
    next(worlds, None)
