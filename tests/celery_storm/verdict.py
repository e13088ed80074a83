"""What the log of a storm, its results and its server must show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Expected", "Seen", "Verdict", "judge"]
# What a worker that is killed may have acknowledged and not ended: its slots, and for each child
# the next two hand-offs.
AHEAD = 3


class Expected(NamedTuple):
    """How a task is to end, and by whose run it is sent: if that is repeated, so may this be."""

    value: Any = None
    fails: str = ""  # the name of the exception's class
    sent_by: Sequence[str] = ()
    header: Sequence[str] = ()  # of the chord whose body it is
    is_optional: bool = False  # not known to anybody if the run that sends it is lost


class Seen(NamedTuple):
    """What there is when all is over."""

    lines: Iterable[Sequence[str]]  # of the log
    stored: Mapping[str, Any]  # values and exceptions, by id
    told: Mapping[str, Any]  # those that waiters have got
    dead: Mapping[str, str]  # the reasons of dead letters, by id
    claims: int  # how often completed chords were handed out again
    open: Sequence[str]  # the bodies of chords that are not over, by id
    kills: int
    slots: int
    late: bool


@dataclass
class Verdict:
    """Counts, and what is at fault."""

    tasks: int = 0
    lost: int = 0  # acknowledged and not ended
    behind: int = 0  # tasks that follow those, and have failed with them
    repeats: int = 0  # runs beyond the first
    twice: int = 0  # bodies of chords that were sent twice
    faults: list[str] = field(default_factory=list)


def judge(expected: Mapping[str, Expected], seen: Seen) -> Verdict:
    """Compare what was to be with what was."""
    found = Verdict(len(expected))
    found.faults += _of_ends(expected, seen, found)
    found.faults += _of_runs(expected, seen, found)
    if seen.late or found.lost > seen.kills * seen.slots * AHEAD:
        found.faults += [f"{found.lost} were lost"] if found.lost else []
    return found


def _of_ends(expected: Mapping[str, Expected], seen: Seen, found: Verdict) -> Iterator[str]:
    failed = {  # and were not to
        id
        for id, each in expected.items()
        if id in seen.stored and not _is_right(seen.stored[id], each)
    }
    for id, each in expected.items():
        if id not in seen.stored:
            if not (each.is_optional and not failed.isdisjoint(each.sent_by)):
                yield f"{id} has no result"
            continue
        end = seen.stored[id]
        if each.is_optional:
            pass
        elif id not in seen.told or not _same(seen.told[id], end):
            yield f"who waits for {id} learns {seen.told.get(id)!r}, and {end!r} is stored"
        if id not in failed:
            continue
        name = type(end).__name__
        if name == "WorkerLostError" and failed.isdisjoint(each.sent_by):
            found.lost += 1
        elif (name == "WorkerLostError" and not failed.isdisjoint(each.sent_by)) or (
            name == "ChordError" and not failed.isdisjoint((*each.header, *each.sent_by))
        ):
            found.behind += 1
        else:
            yield f"{id} has ended with {end!r}"
    for id, reason in seen.dead.items():
        if id not in failed:
            yield f"{id} is a dead letter: {reason}"


def _is_right(end: Any, expected: Expected) -> bool:
    if expected.fails:
        return type(end).__name__ == expected.fails
    return bool(end == expected.value)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Exception):
        return type(one) is type(other) and str(one) == str(other)
    return bool(one == other)


def _of_runs(expected: Mapping[str, Expected], seen: Seen, found: Verdict) -> Iterator[str]:
    starts: defaultdict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    fresh: Counter[tuple[str, str, int]] = Counter()  # of leases that are the message's first
    ended: Counter[str] = Counter()
    for what, task, id, retries, again in seen.lines:
        if what == "end":
            ended[id] += 1
            continue
        starts[id][task, int(retries)] += 1
        fresh[id, task, int(retries)] += again == "0"
    repeated = {id for id, runs in starts.items() if max(runs.values()) > 1}
    found.repeats = sum(sum(runs.values()) - len(runs) for runs in starts.values())
    for id in starts.keys() - expected.keys():
        yield f"{id} has run, and nobody has sent it"
    for id, each in expected.items():
        end = seen.stored.get(id)
        if id in seen.stored and not isinstance(end, Exception) and not ended[id]:
            yield f"{id} has a value and has not ended"
        for (task, retries), count in starts[id].items():
            counted = fresh[id, task, retries] if seen.late else count
            sent_again = not repeated.isdisjoint(each.sent_by) or starts[id][task, retries - 1] > 1
            if counted < 2 or sent_again or (each.header and starts[id]["swap", 0] > 1):
                continue
            if each.header and task == "total":
                found.twice += 1
            else:
                yield f"{id} has run {count} times, {counted} of them for no lost lease"
    for id in seen.open:  # of a run that was killed while it sent one: who repeats it opens another
        if not (starts[id]["swap", 0] > 1 or isinstance(seen.stored.get(id), Exception)):
            yield f"the chord of {id} is not over"
    if found.twice > seen.claims:
        yield f"{found.twice} bodies were sent twice, and {seen.claims} claims have ended"
