"""The projects in `examples/`: their tasks run in workers, started as their READMEs say."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import BOUND, until

ROOT = Path(__file__).parent.parent.parent
FSDF = [sys.executable, "-m", "fsdf_engine.cli"]
# Apart from the environment of the tests, as the first two ask for Celery, which is not needed.
PACKAGES = ["django-celery-results==2.6.*", "sentry-sdk==2.*", "urllib3>=2", "certifi"]


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> str:
    """Return a folder with what the Django project stands on."""
    name = "-".join(PACKAGES).replace("*", "x").replace(">=", "-").replace("==", "-")
    folder: Path = request.config.cache.mkdir("examples") / name
    if not folder.exists():
        partial = folder.with_name(f"{os.getpid()}-{threading.get_ident()}")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", partial]
            + PACKAGES,
            capture_output=True,
            text=True,
        )
        if done.returncode and os.environ.get("FSDF_REQUIRE_SERVICES"):
            pytest.fail(f"pip: {done.stderr}")
        if done.returncode:
            pytest.skip(f"pip cannot install here: {done.stderr.strip()[-200:]}")
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return str(folder)


class Example:
    """A copy of one of the projects, and processes in it."""

    def __init__(
        self, name: str, folder: Path, start: Callable[..., Any], environment: dict[str, str]
    ) -> None:
        self.folder = folder / name
        shutil.copytree(ROOT / "examples" / name, self.folder)
        self.environment = {"PYTHONPATH": str(ROOT), **environment}
        self._start, self.workers = start, []

    def worker(self, app: str, *arguments: str) -> Any:
        worker = self._start(self.folder, app, "-c", "2", *arguments, **self.environment)
        self.workers.append(worker)
        return worker

    def run(self, *command: str) -> str:
        """Run a command of the project's own; return what it prints."""
        done = subprocess.run(
            [*FSDF, "run", "--", sys.executable, *command],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BOUND * 3,
        )
        assert done.returncode == 0, done.stdout + "".join(
            line for worker in self.workers for line in worker.said
        )
        return done.stdout

    def told(self, code: str) -> Any:
        """Run code in a process of the project; return its last line, which is JSON."""
        return json.loads(self.run("-c", textwrap.dedent(code)).splitlines()[-1])


@pytest.fixture
def example(tmp_path: Path, start_worker: Callable[..., Any]) -> Callable[..., Example]:
    def make(name: str, **environment: str) -> Example:
        return Example(name, tmp_path, start_worker, environment)

    return make


@pytest.fixture
def sentry() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that takes what sentry-sdk sends: (DSN, the items it has got)."""
    items: list[dict[str, Any]] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for line in body.splitlines()[2::2]:
                items.append(json.loads(line))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://key@127.0.0.1:{server.server_port}/1", items
    server.shutdown()
    server.server_close()


DJANGO = """
import os, json
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django; django.setup()
import sentry_sdk
from django.test import Client
from django_celery_results.models import TaskResult
from celery import chord
from celery.result import AsyncResult
from orders.models import Order
from orders import tasks
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_django_project_runs_unchanged(example, packages, sentry, redis_url, tmp_path, pool):
    dsn, items = sentry
    project = example(
        "celery_django", CELERY_BROKER_URL=redis_url, SENTRY_DSN=dsn,
        SHOP_DATABASE=str(tmp_path / "shop.sqlite3"),
        PYTHONPATH=os.pathsep.join([str(ROOT), packages]),
    )  # fmt: skip
    project.run("manage.py", "migrate")
    worker = project.worker("shop", "-P", pool)
    told = project.told(
        f"""{DJANGO}
order = Client().get("/order/tea").json()["order"]
with sentry_sdk.start_transaction(name="sending"):
    sent = tasks.send(order, "us")
posted, packed = sent.get(timeout={BOUND}), sent.parent.get(timeout={BOUND})
both = chord([tasks.pack.s(order), tasks.pack.s(order)], tasks.post.s(to="them")).delay()
failed = tasks.fail.delay("no")
error = failed.get(timeout={BOUND}, propagate=False)
rows = {{row.task_id: row for row in TaskResult.objects.all()}}
print(json.dumps([
    posted, packed, Order.objects.get(pk=order).packed, repr(error),
    [rows[each.id].status for each in (sent, sent.parent, failed)], failed.id,
    [rows[sent.id].task_name, rows[sent.id].worker],
    AsyncResult(failed.id).traceback.splitlines()[-1], both.get(timeout={BOUND}),
]))
"""
    )
    id, (name, node) = told[5], told[6]
    assert told[:5] == ["tea for us", "tea", True, "ValueError('no')"] + [
        ["SUCCESS", "SUCCESS", "FAILURE"]
    ]
    assert name == "orders.tasks.post"
    assert node.startswith("celery@")
    assert told[7:] == ["ValueError: no", "['tea', 'tea'] for them"]
    worker.says("packed tea")
    assert any("orders.tasks.pack[" in line and "packed tea" in line for line in worker.said)

    def told_of_failure() -> list[dict[str, Any]]:
        events = [item for item in list(items) if "exception" in item]
        return [event for event in events if event["tags"].get("celery_task_id") == id]

    until(told_of_failure)
    (event,) = told_of_failure()
    assert event["transaction"] == "orders.tasks.fail"
    assert event["extra"]["celery-job"]["task_name"] == "orders.tasks.fail"

    def traces() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for item in list(items):
            if item.get("type") == "transaction":
                trace = item["contexts"]["trace"]["trace_id"]
                found.setdefault(item["transaction"], []).append(trace)
        return found

    until(lambda: {"sending", "orders.tasks.pack", "orders.tasks.post"} <= {*traces()})
    found = traces()
    (trace,) = found["sending"]
    assert trace in found["orders.tasks.post"]
    assert found["orders.tasks.pack"].count(trace) == 1


def test_flask_project_runs_unchanged(example, redis_url):
    pytest.importorskip("flask")
    project = example("celery_flask", BOARD_REDIS=redis_url)
    project.worker("make_celery")
    told = project.told(f"""
        import json
        from make_celery import flask_app
        from celery.result import AsyncResult
        client = flask_app.test_client()
        added = client.post("/tasks/add", data={{"a": 2, "b": 3}}).json["result_id"]
        asked = client.post("/tasks/process", data={{"total": 3}}).json["result_id"]
        AsyncResult(added).get(timeout={BOUND})
        AsyncResult(asked).get(timeout={BOUND})
        print(json.dumps([client.get(f"/tasks/result/{{id}}").json for id in (added, asked)]))
    """)
    assert told == [
        {"ready": True, "successful": True, "value": 5},
        {"ready": True, "successful": True, "value": {"greeting": "hello", "total": 3}},
    ]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_fastapi_project_runs_unchanged(example, redis_url, pool):
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    project = example(
        "celery_fastapi", CELERY_BROKER_URL=redis_url, CELERY_RESULT_BACKEND=redis_url
    )
    project.worker("worker", "-P", pool)
    told = project.told(f"""
        import json
        from fastapi.testclient import TestClient
        from main import app
        from celery.result import AsyncResult
        client = TestClient(app)
        asked = ("/tasks", {{"type": 1}}), ("/naps", {{"seconds": 0}})
        ids = [client.post(path, json=body).json()["task_id"] for path, body in asked]
        [AsyncResult(id).get(timeout={BOUND}) for id in ids]
        print(json.dumps([client.get(f"/tasks/{{id}}").json()["task_result"] for id in ids]))
    """)
    assert told == ["done 1", "awake"]


def test_no_line_of_the_projects_knows_what_runs_them():
    for name in ("celery_django", "celery_flask", "celery_fastapi"):
        for path in (ROOT / "examples" / name).rglob("*.py"):
            assert "fsdf" not in path.read_text(), path
