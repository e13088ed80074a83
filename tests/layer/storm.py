"""Workers of the layer that are killed again and again, and what has become of every message."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import until

WORKER = Path(__file__).parent / "worker.py"
ROOT = WORKER.parent.parent.parent
MEMBERS = 4
LONGEST = 60.0
AHEAD = 64  # messages that a worker may have acknowledged and not ended: slots, 5 ms of work


class Storm:
    """One mode; all brokers. The environment says where they are."""

    def __init__(self, mode: str, folder: Path, seed: int) -> None:
        self.ledger, self._chance, self.kills = folder / "ledger", random.Random(seed), 0
        os.environ.update(LAYER_MODE=mode, LAYER_LEDGER=os.devnull)  # the tests' own do not run
        sys.modules.pop("layer.tasks", None)
        from layer import tasks

        self.tasks, self.app = tasks, tasks.app
        self.queues = [f"toy.{broker}.{ack}" for broker, ack in tasks.QUEUES]
        self.worker: subprocess.Popen[bytes] | None = None

    def send(self, count: int) -> None:
        """Send so many messages to each queue, and a chord for ten of them where acks are late.

        A worker that dies between the result and the group of a member that it had acknowledged
        leaves the group open: what adopts the member finds its end stored, and tells no group.
        """
        send, message, some = self.app.send, self.app.message, range(max(1, count // 10))
        self.ids: dict[str, list[str]] = {}
        for queue in self.queues:
            chords = some if queue.endswith("late") else ()
            send(queue, *[message(queue, f"{queue}:w{n}", "work", [n]) for n in range(count)])
            send(queue, *[message(queue, f"{queue}:f{n}", "flaky", [n]) for n in some])
            send(queue, message(queue, f"{queue}:s0", "slow", [0], limits=[0, 0.3]))
            for n in chords:
                self.app.chord(queue, f"{queue}:t{n}", [[m] for m in range(MEMBERS)], "total")
            kinds = {"w": count, "f": len(some), "t": len(chords), "s": 1}
            self.ids[queue] = [f"{queue}:{k}{n}" for k, c in kinds.items() for n in range(c)]
            self.ids[queue] += [f"{queue}:t{n}.{m}" for n in chords for m in range(MEMBERS)]

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

    def rage(self, kills: int, most: int) -> None:
        """Kill that many workers, each after up to `most` runs; the last one may go on."""
        for _ in range(kills):
            self.spawn()
            goal = len(self.lines()) + self._chance.randint(1, most)
            until(lambda goal=goal: len(self.lines()) >= goal, 60.0)
            self.kill()
            self.kills += 1
        self.spawn()
        deadline = time.monotonic() + LONGEST  # a look takes longer than `until` thinks
        until(lambda: self.ended() or time.monotonic() > deadline, LONGEST)
        until(lambda: self.at_rest() or time.monotonic() > deadline, LONGEST)

    def ended(self) -> bool:
        return all(len(self.app.stored(q, ids)) == len(ids) for q, ids in self.ids.items())

    def at_rest(self) -> bool:
        return not any(sum(self.app.of(queue).size()[:3]) for queue in self.queues)

    def faults(self) -> Iterator[str]:
        """Yield what the layer was not promised."""
        starts = Counter(id for what, id in self.lines() if what == "start")
        for queue, ids in self.ids.items():
            stored = self.app.stored(queue, ids)
            if missing := [id for id in ids if id not in stored]:
                yield f"{missing} have no result"
                continue
            lost = {id for id in ids if stored[id]["state"] in ("lost", "failed")}
            for id in ids:
                end = stored[id]["state"], stored[id]["value"]
                if self.app.get(queue, id, 10.0) != end:
                    yield f"who waits for {id} learns something else"
                if id not in lost and end != self.expected(id):
                    yield f"{id} ended as {end}"
                if id not in lost and not starts[id]:
                    yield f"{id} has ended and never run"
            if queue.endswith("late") and lost:
                yield f"{queue} has lost {sorted(lost)}"
            if len(lost) > self.kills * AHEAD:
                yield f"{queue} has lost {len(lost)}, more than were ahead"
            for id in lost & starts.keys():
                most = 2 if id.rpartition(":")[2][0] == "f" else 1  # in place, then anew
                if starts[id] > most + 1:
                    yield f"{id} was acknowledged and has run {starts[id]} times"
            yield from self._chords(queue, stored, lost)

    def _chords(self, queue: str, stored: Any, lost: set[str]) -> Iterator[str]:
        for id in (id for id in stored if id.rpartition(":")[2][0] == "t" and "." not in id):
            members = {f"{id}.{m}" for m in range(MEMBERS)}
            if stored[id]["state"] == "failed" and not members & lost:
                yield f"the group of {id} has failed and no member of it"
            if stored[id]["state"] == "done" and members & lost:
                yield f"the group of {id} has left without all of its members"

    def expected(self, id: str) -> tuple[str, Any]:
        kind, _, member = id.rpartition(":")[2].partition(".")
        n = int(member or kind[1:])
        if kind[0] == "s":
            return "timedout", "the run passed its limit of 0.3 s"
        if kind[0] == "t" and not member:
            return "done", sum(m * m for m in range(MEMBERS))
        return "done", n if kind[0] == "f" else n * n
