"""Servers of the tests' own: RabbitMQ, PostgreSQL, MariaDB; and what empties those of all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from helpers import BOUND, free_port, until

from scripts.server import Problem, place
from scripts.servers import SERVERS

START_BOUND = 60.0  # RabbitMQ takes 9 s where it is alone


class OwnServer:
    """A server that a test may stop, kill and start again; its ports and its data stay the same."""

    def __init__(self, name: str) -> None:
        kind = SERVERS[name]
        try:
            kind.needed()
        except Problem as problem:
            if os.environ.get("FSDF_REQUIRE_SERVICES", "") not in ("", "0"):
                pytest.fail(str(problem))
            pytest.skip(str(problem))
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place()))
        self.folder.chmod(0o711)  # the server's user has to pass
        data = self.folder / "data"
        data.mkdir()
        self.server = kind(data, [free_port() for _ in kind.wanted])
        self.server.prepare()
        self.url = next(iter(self.server.variables().values()))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert not self.processes, "it runs already"
        log = self.folder / "log"
        with open(log, "ab") as output:
            self.processes = self.server.launch(output)
        main = self.processes[-1]
        try:
            until(lambda: main.poll() is not None or self.server.healthy(), START_BOUND)
            assert main.poll() is None
        except AssertionError:
            self.kill()
            raise AssertionError(f"did not start:\n{log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it in order. Idempotent."""
        if self.processes:
            self.processes[-1].send_signal(signal.SIGCONT)  # a test may have stopped it
            self.processes[-1].send_signal(self.server.ending)
            with suppress(subprocess.TimeoutExpired):
                self.processes[-1].wait(BOUND)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), its children with it. Idempotent."""
        processes, self.processes = self.processes, []
        ended: list[psutil.Process] = []
        for each in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                whole = psutil.Process(each.pid)
                ended += [*whole.children(recursive=True), whole]
        for one in ended:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        for each in processes:
            each.wait()
        until(lambda: not any(alive(one) for one in ended) and self.server.silent())

    def close(self) -> None:
        """End it, and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def alive(process: psutil.Process) -> bool:
    """Say whether a process still has anything: one that waits for its parent to look has not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class RabbitApi:
    """The management interface of a RabbitMQ, as user guest; paths are below /api/."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.base = f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        """Ask, and return the answer's JSON, if it has one. HTTPError where it is refused."""
        from base64 import b64encode

        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.base}/{path}", data=data, method=method)
        request.add_header("Authorization", f"Basic {b64encode(b'guest:guest').decode()}")
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=BOUND) as answer:
            return json.loads(answer.read() or b"null")

    def empty(self, vhost: str) -> None:
        """Delete every queue of a virtual host; return when there is none."""
        place = f"queues/{quote(vhost, safe='')}"

        def empty() -> bool:
            found = self("GET", f"{place}?columns=name")
            for queue in found:
                try:
                    self("DELETE", f"{place}/{quote(queue['name'], safe='')}")
                except HTTPError as error:
                    if error.code not in (400, 404):  # exclusive, which goes by itself, or gone
                        raise
            return not found

        until(empty)

    def drop_connections(self) -> None:
        """Cut every connection, as an operator does. Those a second old or older are listed."""
        for each in self("GET", "connections?columns=name"):
            with suppress(OSError):
                self("DELETE", f"connections/{quote(each['name'], safe='')}")


def empty_postgresql(url: str, database: str) -> None:
    """Make the database `database` on that server, or empty it."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as admin:
        found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
        if not found.fetchone():
            admin.execute(f'CREATE DATABASE "{database}" TEMPLATE template0')
            return
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database]
        )
    with psycopg.connect(url.rpartition("/")[0] + "/" + database, autocommit=True) as own:
        schemas = own.execute(
            "SELECT nspname FROM pg_namespace"
            " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall()
        for (schema,) in schemas:
            own.execute(f'DROP SCHEMA "{schema}" CASCADE')
        own.execute("CREATE SCHEMA public")


def empty_mariadb(url: str, database: str) -> None:
    """Make the database `database` on that server, or empty it."""
    import pymysql

    parts = urlsplit(url)
    with pymysql.connect(host=parts.hostname, port=parts.port, user=parts.username) as admin:
        with admin.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE db = %s", [database]
            )
            for (connection,) in cursor.fetchall():
                with suppress(pymysql.Error):  # it has gone
                    cursor.execute(f"KILL {connection}")
            cursor.execute(f"DROP DATABASE IF EXISTS `{database}`")
            cursor.execute(f"CREATE DATABASE `{database}` CHARACTER SET utf8mb4")


def is_kept(folder, name):
    """Say whether a quorum queue is in the server's list of them on the disk.

    RabbitMQ 3.10 writes that list now and then: if it is killed earlier, the queue has no leader
    when it has started again, and confirms nothing.
    """
    quoted = f"2F_{name}".encode()
    return any(quoted in path.read_bytes() for path in folder.rglob("names.dets"))
