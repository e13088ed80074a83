"""Workers of the layer that are killed again and again, and what has become of every message."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from helpers import until

from fsdf_engine.contracts import Capability

WORKER = Path(__file__).parent / "worker.py"
ROOT = WORKER.parent.parent.parent
MODES = ["threads", "asyncio", "gevent", "eventlet", "processes", "single_thread"]
MEMBERS = 4
LONGEST = 180.0  # seconds in which all must have ended, on however busy a machine
AHEAD = 64  # messages that a worker may have acknowledged and not ended: slots, 5 ms of work
RUNS = {"f": 3}  # runs of a message that is run once: in place, then anew


class Storm:
    """One mode, some brokers; the environment says where they are.

    Those in memory are served here, by workers that nobody kills.
    """

    def __init__(self, mode: str, folder: Path, seed: int, brokers: Sequence[str] = ()) -> None:
        self.ledger, self._chance, self.kills = folder / "ledger", random.Random(seed), 0
        self._here = "memory" in brokers
        # Of those whose workers are processes of their own, the tasks here don't run.
        os.environ.update(
            LAYER_MODE=mode, LAYER_LEDGER=str(self.ledger if self._here else os.devnull)
        )
        if brokers:
            os.environ["LAYER_BROKERS"] = ",".join(brokers)
        sys.modules.pop("layer.tasks", None)
        tasks = importlib.import_module("layer.tasks")
        self.tasks, self.app = tasks, tasks.app
        self.queues = [f"toy.{broker}.{ack}" for broker, ack in tasks.QUEUES]
        # What such a broker has handed out is gone with its worker.
        self.at_most_once = {q for q in self.queues if not self._leases(q)}
        self.worker: subprocess.Popen[bytes] | None = None
        self._pool: Any = None

    def _leases(self, queue: str) -> bool:
        broker = self.app.engine.broker_of(self.app.of(queue).options)
        return Capability.LEASE in broker.capabilities

    def send(self, count: int, name: str = "") -> None:
        """Send so many messages to each queue, and a chord for ten of them."""
        send, message, some = self.app.send, self.app.message, range(max(1, count // 10))
        self.ids: dict[str, list[str]] = {}
        for queue in self.queues:
            own = f"{name}{queue}"
            send(queue, *[message(queue, f"{own}:w{n}", "work", [n]) for n in range(count)])
            send(queue, *[message(queue, f"{own}:f{n}", "flaky", [n]) for n in some])
            send(queue, message(queue, f"{own}:s0", "slow", [0], limits=[0, 0.3]))
            for n in some:
                self.app.chord(queue, f"{own}:t{n}", [[m] for m in range(MEMBERS)], "total")
            kinds = {"w": count, "f": len(some), "t": len(some), "s": 1}
            self.ids[queue] = [f"{own}:{k}{n}" for k, c in kinds.items() for n in range(c)]
            self.ids[queue] += [f"{own}:t{n}.{m}" for n in some for m in range(MEMBERS)]

    def lines(self) -> list[list[str]]:
        if not self.ledger.exists():
            return []
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def spawn(self) -> None:
        env = {**os.environ, "LAYER_LEDGER": str(self.ledger)}
        path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        env |= {"PYTHONPATH": path}
        with open(f"{self.ledger}.log", "ab") as log:
            self.worker = subprocess.Popen([sys.executable, str(WORKER)], env=env, stderr=log)

    def kill(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
            self.worker = None

    def rage(self, kills: int) -> None:
        """Kill that many workers, each after a random share of the runs; the last one may end all.

        At most five: a message that was lost with six is given up.
        """
        most = sum(map(len, self.ids.values())) // kills  # there are about two lines for each
        for _ in range(kills):
            self.spawn()
            goal = len(self.lines()) + self._chance.randint(1, most)
            until(lambda goal=goal: len(self.lines()) >= goal, 60.0)
            self.kill()
            self.kills += 1
        self.spawn()
        self.wait()
        self.kill()  # nothing changes while it is judged

    def serve(self) -> None:
        """Run all of it in this process."""
        if not self.app.engine.handles():
            more = {"resolve": "layer.tasks:resolve", "preload": ("layer.tasks",)}
            self._pool = self.app.consume(self.tasks.SLOTS, **more)
        self.wait()

    def close(self) -> None:
        """End every process and thread of it."""
        self.kill()
        self.app.engine.close()
        if self._pool:
            self._pool.close(0.0)

    def wait(self) -> None:
        """Block until all has ended that can; at most so long that a failure can be told."""
        deadline = time.monotonic() + LONGEST  # a look takes longer than `until` thinks
        until(lambda: self.ended() or time.monotonic() > deadline, LONGEST)
        until(lambda: self.at_rest() or time.monotonic() > deadline, LONGEST)
        news, known = time.monotonic(), -1

        def quiet() -> bool:
            nonlocal news, known
            if known != (known := self._stored(self.at_most_once)):
                news = time.monotonic()
            return time.monotonic() > min(deadline, news + 4 * self.tasks.LEASE)

        if self.at_most_once:  # of what is lost unmarked nobody will ever learn
            until(quiet, LONGEST)

    def _stored(self, queues: set[str]) -> int:
        return sum(len(self.app.stored(q, self.ids[q])) for q in queues)

    def ended(self) -> bool:
        sure = self.ids.keys() - self.at_most_once
        return self._stored(sure) == sum(len(self.ids[queue]) for queue in sure)

    def at_rest(self) -> bool:
        return not any(sum(self.app.of(queue).size()[:3]) for queue in self.queues)

    # ---------------------------------------------------------------- the judge

    def faults(self) -> Iterator[str]:
        """Yield what the layer was not promised."""
        starts = Counter(id for what, id in self.lines() if what == "start")
        for queue, ids in self.ids.items():
            stored = self.app.stored(queue, ids)
            missing = {id for id in ids if id not in stored}
            lost = {id for id in stored if stored[id]["state"] in ("lost", "failed")}
            yield from self._of_losses(queue, missing, lost)
            for id in stored:
                end = stored[id]["state"], stored[id]["value"]
                if (told := self.app.get(queue, id, 10.0)) != end:
                    yield f"who waits for {id} learns {told}, and {end} is stored"
                if id not in lost and end != self.expected(id):
                    yield f"{id} ended as {end}"
                if id not in lost and not starts[id]:
                    yield f"{id} has ended and never run"
            if queue.endswith("early") or queue in self.at_most_once:
                for id in ids:  # the message of a group is published at least once, under one id
                    if starts[id] > RUNS.get(kind_of(id), 1) and not is_group(id):
                        yield f"{id} was to run once and has run {starts[id]} times"
            yield from self._of_chords(queue, stored, missing | lost)

    def _of_losses(self, queue: str, missing: set[str], lost: set[str]) -> Iterator[str]:
        sure = queue not in self.at_most_once
        if missing and sure:
            yield f"{sorted(missing)} have no result"
        if queue.endswith("late") and sure and lost:
            yield f"{queue} has lost {sorted(lost)}"
        # A group that misses a member, or whose message was taken along, has not been lost itself.
        gone = [id for id in missing | lost if not is_group(id)]
        if len(gone) > self.kills * AHEAD:
            yield f"{queue} has lost {len(gone)}, more than were ahead"

    def _of_chords(self, queue: str, stored: Any, gone: set[str]) -> Iterator[str]:
        for id in filter(is_group, stored):
            members = {f"{id}.{m}" for m in range(MEMBERS)}
            if stored[id]["state"] == "failed" and not members & gone:
                yield f"the group of {id} has failed and no member of it"
            if stored[id]["state"] == "done" and members & gone:
                yield f"the group of {id} has left without all of its members"

    def expected(self, id: str) -> tuple[str, Any]:
        kind, member = kind_of(id), id.rpartition(":")[2].partition(".")[2]
        n = int(member or id.rpartition(":")[2][1:])
        if kind == "s":
            return "timedout", "the run passed its limit of 0.3 s"
        if kind == "t" and not member:
            return "done", sum(m * m for m in range(MEMBERS))
        return "done", n if kind == "f" else n * n


def kind_of(id: str) -> str:
    """Return the letter of what a message is: work, flaky, slow, or total and its members."""
    return id.rpartition(":")[2][0]


def is_group(id: str) -> bool:
    """Say whether it is the message of a group."""
    return kind_of(id) == "t" and "." not in id.rpartition(":")[2]
