"""What the ledger of a storm must show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Line", "Published", "Verdict", "judge", "read"]
POISON = 5  # workers lost with a message before it is given up at the next
CLOCK = 0.005  # seconds by which the clocks of a server and of Python may differ on one machine


class Line(NamedTuple):
    """One line of the ledger; see chaos_worker.py."""

    what: str
    id: str
    attempt: int
    deliveries: int
    n: int
    at: float
    parent: str


@dataclass
class Published:
    """What the publishers were told: the kind by task id, when it is due, what is not known."""

    stored: dict[str, str] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    unanswered: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """All of these are to be empty, but `repeated`."""

    lost: list[str] = field(default_factory=list)
    childless: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    repeated: int = 0  # runs beyond the first, each after a lease that was lost

    def faults(self) -> dict[str, list[str]]:
        return {name: value for name, value in vars(self).items() if value and name != "repeated"}


def read(ledger: Path) -> list[Line]:
    found = []
    for text in ledger.read_text().splitlines():
        what, id, attempt, deliveries, n, at, parent = text.split()
        found.append(Line(what, id, int(attempt), int(deliveries), int(n), float(at), parent))
    return found


def judge(
    published: Published, lines: Iterable[Line], dead: Mapping[str, str] | None = None
) -> Verdict:
    """Compare; `dead` are the reasons of dead letters by task id.

    That one was lost with six workers is no fault if it really was: storms kill a lot.
    """
    verdict = Verdict(unanswered=published.unanswered, wrong=published.wrong)
    starts, ended = defaultdict(list), set()
    children: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.what == "start":
            starts[line.id].append(line)
        else:
            ended.add(line.id)
            if line.parent != "-":
                children[line.parent].add(line.id)
    explained = {
        id
        for id, reason in (dead or {}).items()
        if reason.startswith("lost") and any(run.deliveries >= POISON for run in starts[id])
    }
    verdict.dead = [f"{id}: {r}" for id, r in (dead or {}).items() if id not in explained]
    ended |= explained
    verdict.lost = [id for id in published.stored if id not in ended]
    for id, runs in starts.items():
        parent = runs[0].parent
        if id not in published.stored and id not in published.unknown and parent == "-":
            verdict.strangers.append(id)
        if runs[0].at < published.due.get(id, 0.0) - CLOCK:
            verdict.early.append(id)
        # A run that repeats one does so after a lost lease, and is told; so no two are alike. What
        # a run pushes may be pushed again by the run that repeats it.
        alike = Counter((run.attempt, run.deliveries) for run in runs)
        copies = len(starts[parent]) if parent in starts else 1
        if max(alike.values()) > copies:
            verdict.unexplained.append(f"{id}: {sorted(alike.items())}")
        verdict.repeated += len(runs) - len({run.attempt for run in runs})
    for id, kind in published.stored.items():
        if kind == "parent" and len(children[id]) < 2 and id in ended:
            verdict.childless.append(f"{id}: {len(children[id])}")
    return verdict
