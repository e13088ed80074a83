"""A storm over one broker: publishers, waiters and workers, and all kinds of faults at random.

Publishers send again only what was surely not stored. At the end the sky clears, the queues must
become empty, and the ledger is judged.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaos import verdict
from chaos.proxy import Proxy
from helpers import RedisServer
from own_servers import OwnServer

from fsdf_engine import Engine, PublishError, ResultError, Unavailable

__all__ = ["Storm"]
WORKER = Path(__file__).parent / "chaos_worker.py"
WORKERS, PUBLISHERS, LEASE = 3, 3, 2.0
QUEUES = {"child": "chaos.children"}  # of the others: chaos
KINDS = ["plain"] * 10 + ["delayed"] * 3 + ["flaky"] * 2 + ["parent"] * 3 + ["answer"] * 4
CLEAR = 90.0  # seconds within which all must be done after the last fault
GAP = 0.01  # seconds between two messages of a publisher
MOST = 1500  # messages that wait, before publishers pause


class Storm:
    """`kind` is the broker's short name, `server` its own; without one the file in `folder`."""

    def __init__(
        self, kind: str, folder: Path, server: RedisServer | OwnServer | None, seed: int
    ) -> None:
        self.kind, self.folder, self.server = kind, folder, server
        self.chance, self.faults = random.Random(seed), dict[str, int]()
        self.ledger, self.file = folder / "ledger", folder / "queue.sqlite"
        self.published = verdict.Published()
        port = urlsplit(server.url).port if server else None
        self._proxy = Proxy(port) if port else None
        self._over, self._flow, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._flow.set()
        self._waiters: list[threading.Thread] = []
        self.calm = 0.0  # seconds from the last fault to the end of everything
        self._deck: list[Callable[[], None]] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self._log = open(folder / "workers.log", "ab")
        # The publishers' own way to the server: it is interrupted by restarts only.
        self._engine = Engine(self._settings(port))
        self.tasks: Mapping[str, Any] = {
            name: self._engine.remote(
                QUEUES.get(name, "chaos"), name=name, is_using_rpc_mode=name == "answer"
            )
            for name in {*KINDS, "long", "child"}
        }

    def _settings(self, port: int | None) -> dict[str, str]:
        settings = {"BROKER_KIND": self.kind, "SQLITE_PATH": str(self.file)}
        if self.server:
            key = "SQLALCHEMY_URL" if self.kind == "sqlalchemy" else "REDIS_URL"
            parts = urlsplit(self.server.url)
            user, at, _ = parts.netloc.rpartition("@")
            settings[key] = parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
        return settings

    def rage(self, seconds: float) -> verdict.Verdict:
        """Let it rage, wait for the end of everything, and judge. Blocks."""
        for _ in range(WORKERS):
            self._spawn()
        threads = [threading.Thread(target=self._publish) for _ in range(PUBLISHERS)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self._over.wait(self.chance.uniform(0.2, 1.2))
                self._fault()
                self._throttle()
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        cleared = time.monotonic()
        stuck, end = [], time.monotonic() + CLEAR
        while (sizes := self._sizes()) and any(any(size[:3]) for size in sizes):
            if time.monotonic() > end:
                stuck = [repr(size) for size in sizes]
                break
            threading.Event().wait(0.05)
        for waiter in self._waiters:
            waiter.join()
        self.calm = time.monotonic() - cleared
        letters = [d for n in ("plain", "child") for d in self.tasks[n].dead_letters()]
        dead = {json.loads(letter.body)["extra"]["task_id"]: letter.reason for letter in letters}
        found = verdict.judge(self.published, verdict.read(self.ledger), dead)
        found.stuck = stuck
        return found

    def close(self) -> None:
        """End every process and thread of it."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
        self._engine.close()
        if self._proxy:
            self._proxy.close()
        self._log.close()

    def _throttle(self) -> None:
        """Publish no more while much waits: how fast a machine works is not the question here."""
        with suppress(Unavailable):
            waiting = sum(size.waiting for size in self._sizes())
            (self._flow.set if waiting < MOST else self._flow.clear)()

    def _sizes(self) -> list[Any]:
        return [self.tasks[name].size() for name in ("plain", "child")]

    # ---------------------------------------------------------------- workers and publishers

    def _spawn(self) -> None:
        port = self._proxy.port if self._proxy else None
        settings = {f"FSDF_{key}": value for key, value in self._settings(port).items()}
        environment = {**os.environ, **settings}
        command = [sys.executable, str(WORKER), str(self.ledger)]
        self._workers.append(subprocess.Popen(command, env=environment, stderr=self._log))

    def _publish(self) -> None:
        chance = random.Random(self.chance.random())
        while not self._over.wait(GAP):
            if not self._flow.wait(GAP):
                continue
            kind = chance.choice(KINDS)
            if chance.random() < 0.002:
                kind = "long"
            countdown = chance.uniform(0.2, 3.0) if kind == "delayed" else 0.0
            id = f"{kind}-{chance.getrandbits(64):x}"
            due = time.time() + countdown
            if (result := self._send(kind, id, countdown)) is None:
                continue
            with self._lock:
                self.published.stored[id] = kind
                self.published.due[id] = due
            if kind == "answer":
                self._ask(result, id)

    def _send(self, kind: str, id: str, countdown: float) -> Any:
        """Return the result object; None where it is unknown whether the message is stored."""
        n = len(self.published.stored)
        while True:
            try:
                return self.tasks[kind].publish({"n": n}, task_id=id, countdown=countdown)
            except Unavailable:  # nothing was sent
                self._over.wait(0.05)
            except PublishError as error:
                if not error.rejected:
                    with self._lock:
                        self.published.unknown.add(id)
                    return None

    def _ask(self, result: Any, id: str) -> None:
        def ask() -> None:
            try:
                if result.get(CLEAR) % 2:
                    self.published.wrong.append(id)
            except ResultError as error:
                self.published.unanswered.append(f"{id}: {error!r}")

        self._waiters.append(threading.Thread(target=ask, daemon=True))
        self._waiters[-1].start()

    # ---------------------------------------------------------------- faults

    def _fault(self) -> None:
        if not self._deck:  # each kind comes once before any comes again
            served = [self._stall, self._cut, self._restart] if self.server else [self._hold_file]
            self._deck = [self._kill, self._kill, self._stop, *served]
            self.chance.shuffle(self._deck)
        fault = self._deck.pop()
        name = fault.__name__.strip("_")
        self.faults[name] = self.faults.get(name, 0) + 1
        fault()

    def _kill(self) -> None:
        worker = self._workers.pop(self.chance.randrange(len(self._workers)))
        worker.kill()
        worker.wait()
        self._spawn()

    def _stop(self) -> None:
        """A worker stands still for longer than its leases, and goes on as if nothing was."""
        worker = self.chance.choice(self._workers)
        worker.send_signal(signal.SIGSTOP)
        self._over.wait(LEASE * self.chance.uniform(0.5, 2.0))
        worker.send_signal(signal.SIGCONT)

    def _stall(self) -> None:
        assert self._proxy
        self._proxy.stall()
        self._over.wait(LEASE * self.chance.uniform(0.2, 2.0))
        self._proxy.flow()

    def _cut(self) -> None:
        assert self._proxy
        self._proxy.cut()

    def _restart(self) -> None:
        assert self.server
        self.server.kill()
        self._over.wait(self.chance.uniform(0.0, LEASE))
        self.server.start()

    def _hold_file(self) -> None:
        """Another program keeps the file to itself."""
        other = sqlite3.connect(self.file, isolation_level=None, timeout=30.0)
        other.execute("BEGIN IMMEDIATE")
        self._over.wait(LEASE * self.chance.uniform(0.2, 2.0))
        other.execute("COMMIT")
        other.close()
