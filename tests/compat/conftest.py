"""A project with a Celery app, and workers for it as users start them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import BOUND, until

from fsdf_compat import _state
from fsdf_compat._backends import keyvalue, waiting

ROOT = Path(__file__).parent.parent.parent
HEAD = """
import json, os, threading, time
from pathlib import Path
from fsdf_compat import Celery
from fsdf_compat.exceptions import Ignore, Reject, SoftTimeLimitExceeded

HERE = Path(__file__).parent
app = Celery("proj", broker={url!r}, backend={backend!r})

def note(text):
    with open(HERE / "notes", "a") as file:
        file.write(text + "\\n")

def wait_for_release():
    with open(HERE / "gate") as gate:  # a fifo: blocks until the test opens its other end
        gate.read()
"""

HEAD_ELSEWHERE = """
import json
from fsdf_compat import Celery
app = Celery("elsewhere", broker={url!r}, backend={backend!r})
"""


class Worker:
    """A worker process, started by the command line; `said` is what it has written so far."""

    def __init__(
        self,
        folder: Path,
        app: str,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        before: tuple[str, ...] = (),
    ) -> None:
        self._begin(folder, ("-A", app, *before, "worker", *arguments), environment)

    @classmethod
    def of(cls, folder: Path, words: tuple[str, ...]) -> Worker:
        """Start one by all the words of its command line."""
        worker = cls.__new__(cls)
        worker._begin(folder, words, {})
        return worker

    def _begin(self, folder: Path, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fsdf_engine.cli", "celery", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._grew = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grew:
                self.said.append(line)
                self._grew.notify_all()
        with self._grew:
            self._ended = True
            self._grew.notify_all()

    def says(self, text: str) -> None:
        """Wait until it has written `text`."""
        with self._grew:
            self._grew.wait_for(lambda: self._ended or text in "".join(self.said), 3 * BOUND)
            assert text in "".join(self.said), f"never said {text!r}:\n{''.join(self.said)}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(BOUND)

    def ends(self) -> int:
        """Wait until it has ended; return its exit code."""
        code: int = self.process.wait(BOUND)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(BOUND)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the worker did not stop:\n" + "".join(self.said)) from None


class Project:
    """A folder with proj.py; the test imports it, and workers are started in it."""

    root = str(ROOT)

    def __init__(self, folder: Path, url: str, backend: str | None) -> None:
        self.folder, self.url, self.backend = folder, url, backend
        self.workers: list[Worker] = []
        os.mkfifo(folder / "gate")

    def write(self, code: str) -> ModuleType:
        """Write and import proj.py; `app`, `note` and `wait_for_release` are there."""
        head = HEAD.format(url=self.url, backend=self.backend)
        (self.folder / "proj.py").write_text(head + textwrap.dedent(code))
        importlib.invalidate_caches()
        return importlib.import_module("proj")

    def worker(
        self, *arguments: str, app: str = "proj", before: tuple[str, ...] = (), **environment: str
    ) -> Worker:
        """Start a worker (threads, unless arguments say otherwise); returns when it is ready."""
        worker = self.start(*arguments, app=app, before=before, **environment)
        worker.says("ready.")
        return worker

    def start(
        self, *arguments: str, app: str = "proj", before: tuple[str, ...] = (), **environment: str
    ) -> Worker:
        """Start a worker that may end before it is ready."""
        pool = () if "-P" in arguments else ("-P", "threads", "-c", "4")
        worker = Worker(self.folder, app, ("-l", "INFO", *pool, *arguments), environment, before)
        self.workers.append(worker)
        return worker

    def elsewhere(self, code: str) -> Any:
        """Run code in a process that has an app of the same servers and no tasks; its `said`."""
        head = HEAD_ELSEWHERE.format(url=self.url, backend=self.backend)
        done = subprocess.run(
            [sys.executable, "-c", head + textwrap.dedent(code) + "\nprint(json.dumps(said))"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=BOUND,
            check=True,
        )
        return json.loads(done.stdout)

    def notes(self) -> list[str]:
        """Return what tasks have noted so far."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def noted(self, *lines: str) -> None:
        """Wait until the tasks have noted exactly these lines."""
        until(lambda: self.notes() == list(lines))

    def release(self) -> None:
        """Let the one task that waits for it go on."""
        (self.folder / "gate").write_text("go")

    def size(self, app: Any, queue: str = "celery") -> Any:
        """Count the messages of one of Celery's queues."""
        kind = {"redis": "redis_ack", "sqlite": "sqlite"}[self.url.partition(":")[0]]
        return app.engine.broker(kind, self.url).size(app.amqp.wire_queue(queue))


@pytest.fixture(autouse=True)
def own_tasks() -> Iterator[None]:
    """Tasks of one app are made for those that come later, too: not for those of other tests."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(before)
    _state._set_current_app(None)


@pytest.fixture
def make_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Project]]:
    made: list[Project] = []
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def make(url: str, backend: str | None) -> Project:
        made.append(Project(folder, url, backend))
        return made[-1]

    yield make
    module = sys.modules.pop("proj", None)
    for project in made:
        for worker in project.workers:
            worker.close()
    if module is not None:
        module.app.close()


@pytest.fixture(params=["redis", "sqlite"])
def project(
    request: pytest.FixtureRequest, tmp_path: Path, make_project: Callable[..., Project]
) -> Project:
    """A project on each broker."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        return make_project(url, url)
    path = tmp_path / "queue.sqlite"
    return make_project(f"sqlite:///{path}", f"db+sqlite:///{path}")


@pytest.fixture
def redis_project(redis_url: str, make_project: Callable[..., Project]) -> Project:
    return make_project(redis_url, redis_url)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who waits for results that are looked for do so every 20 ms, not every 0.5 s."""
    looks = waiting.looks

    def quick(timeout: float | None, interval: float, *rest: Any) -> Iterator[int]:
        return looks(timeout, min(interval, 0.02), *rest)

    for place in (waiting, keyvalue):
        monkeypatch.setattr(place, "looks", quick)


@pytest.fixture
def run_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers by all the words of their command line; each is ready when returned."""
    workers: list[Worker] = []

    def start(*words: str) -> Worker:
        workers.append(Worker.of(tmp_path, words))
        workers[-1].says("ready.")
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Worker]]:
    """Start workers in folders that are no such project; returns when they are ready."""
    made: list[Worker] = []

    def start(folder: Path, app: str, *arguments: str, **environment: str) -> Worker:
        made.append(Worker(folder, app, ("-l", "INFO", *arguments), environment))
        made[-1].says("ready.")
        return made[-1]

    yield start
    for worker in made:
        worker.close()
