"""Workers of the project that are killed while it is served, and its waiters."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import proj
import psutil
import redis
from celery.exceptions import TimeoutError
from celery.result import ResultSet
from helpers import signal_each, until

from celery_storm.calls import Call, Calls
from celery_storm.verdict import Seen

HERE = Path(__file__).parent
WORKERS, SLOTS, WAITERS = 2, 8, 16
# Results with what fences them, dead letters, chords, and decisions about early messages.
_KEPT = re.compile(
    rb"(fsdf:fence:)?celery-task-meta-|.*:(dead|letters)$|fsdf:group:|fsdf:mark:fate:|_kombu"
)
_BODY = re.compile(rb'"task_id": ?"([^"]+)"')
LONGEST = 120.0  # seconds after the last kill within which all messages are gone
CALM = 20.0  # and after that, until whoever waits has learnt everything


class Storm:
    """One pool, and one way to acknowledge; the environment says where the server is."""

    def __init__(self, pool: str, folder: Path, seed: int) -> None:
        self.pool, self.folder = pool, folder
        self.calls, self._chance = Calls(seed), random.Random(seed)
        self.kills: list[str] = []
        self.told: dict[str, Any] = {}  # what waiters have learnt
        self.faults: list[str] = []
        self._workers: list[psutil.Popen] = []
        self._sent: SimpleQueue[Call | None] = SimpleQueue()
        self._over = 0.0
        self._queue = proj.app.amqp.wire_queue("celery")
        self._log = open(folder / "workers.log", "ab")

    def rage(self, tasks: int, kills: int) -> None:
        """Send and kill; return when everything is at rest, and the workers have ended."""
        threads = [threading.Thread(target=self._await, daemon=True) for _ in range(WAITERS)]
        threads.append(threading.Thread(target=self._send, args=(tasks,), daemon=True))
        for _ in range(WORKERS):
            self._spawn()
        for thread in threads:
            thread.start()
        # A run has two lines; some are repeated, and what fails is not sent on.
        with open(proj.LEDGER, "rb") as log:
            seen = 0
            for goal in sorted(self._chance.sample(range(1, tasks * 2 * 9 // 10), kills)):

                def reached(goal: int = goal) -> bool:
                    nonlocal seen
                    seen += log.read().count(b"\n")
                    return seen >= goal

                until(reached, LONGEST)
                self._kill()
        until(self.at_rest, LONGEST)
        self._over = time.monotonic() + CALM
        for thread in threads:
            thread.join()
        until(self.at_rest, LONGEST)
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        ends = {worker.wait(LONGEST) for worker in self._workers}
        if ends - {0, -signal.SIGTERM}:  # it may have been about to start
            self.faults.append(f"workers have ended with {ends}")
        self._workers = []

    def close(self) -> None:
        """End every process of it."""
        for worker in self._workers:
            self._end(worker)
        proj.app.engine.close()
        proj.app.close()
        self._log.close()

    def lines(self) -> list[list[str]]:
        """Return what runs have noted so far."""
        return [line.split() for line in Path(proj.LEDGER).read_text().splitlines()]

    def at_rest(self) -> bool:
        """Say whether no message waits, is delayed or leased."""
        return not any(self._broker.size(self._queue)[:3])

    @property
    def _broker(self) -> Any:
        return proj.app.engine.broker("redis_ack", proj.URL)

    def seen(self) -> Seen:
        """Return what there is to be judged, when all is over."""
        ends = {id: proj.app.AsyncResult(id) for id in self.calls.expected}
        stored = {id: end.result for id, end in ends.items() if end.ready()}
        letters = self._broker.dead_letters(self._queue, 1000)
        dead = {json.loads(each.body)["extra"]["task_id"]: each.reason for each in letters}
        with redis.Redis.from_url(proj.URL) as client:
            keys = [key for key in client.scan_iter(count=1000) if not _KEPT.match(key)]
            self.faults += [f"{key!r} is left in the server" for key in keys]
            names = client.scan_iter("fsdf:group:*", count=1000)
            chords = [client.hgetall(key) for key in names if not key.endswith(b":members")]
        claims = sum(int(chord.get(b"claims", 1)) - 1 for chord in chords)
        bodies = [_BODY.findall(chord.get(b"messages", b"")) for chord in chords]
        open = [id.decode() for found in bodies for id in found[:1]]
        late = proj.app.conf.task_acks_late
        lines = self.lines()
        return Seen(lines, stored, self.told, dead, claims, open, len(self.kills), SLOTS, late)

    # ---------------------------------------------------------------- who sends and who waits

    def _send(self, tasks: int) -> None:
        for call in self.calls.make(tasks):
            call.signature.apply_async(**call.options)
            self._sent.put(call)
        for _ in range(WAITERS):
            self._sent.put(None)

    def _await(self) -> None:
        """Wait for the tasks of a call, one by one or together, until there is no call."""
        for n, call in enumerate(iter(self._sent.get, None)):
            results = [proj.app.AsyncResult(id) for id in call.ids]
            if n % 2:
                self._patiently(ResultSet(results, app=proj.app), "all of them")
            for result in results:
                self._patiently(result, result.id)

    def _patiently(self, result: Any, name: str) -> None:
        """Wait until it is there, or until nothing more can come."""
        while True:
            over = self._over
            timeout = CALM if not over else max(0.1, over - time.monotonic())
            try:
                self.told[name] = result.get(timeout=timeout, propagate=False)
                return
            except TimeoutError as error:
                if over:
                    self.faults.append(f"who waits for {name} gets {error!r}")
                    return

    # ---------------------------------------------------------------- who kills

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "proj", "worker", "-l", "INFO",
                   "-P", self.pool, "-c", str(SLOTS)]  # fmt: skip
        self._workers.append(psutil.Popen(
            command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        ))  # fmt: skip

    def _kill(self) -> None:
        """Kill a worker with all its processes, alone, or one of them."""
        worker = self._chance.choice(self._workers)
        family = worker.children(recursive=True)
        ways = ["group", "worker", "child", "child"] if family else ["group"]
        how = self._chance.choice(ways)
        self.kills.append(how)
        if how == "child":
            signal_each([self._chance.choice(family)], signal.SIGKILL)
            return
        if (code := worker.poll()) is not None:
            self.faults.append(f"a worker has ended by itself, with {code}")
        self._workers.remove(worker)
        if how == "worker":
            worker.kill()
            worker.wait()
        else:
            self._end(worker)
        self._spawn()

    def _end(self, worker: psutil.Popen) -> None:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
