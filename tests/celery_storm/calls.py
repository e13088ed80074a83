"""What is sent, and what is to become of each task, by its id."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import proj
from celery import chain, chord, group

from celery_storm.verdict import Expected

__all__ = ["Call", "Calls"]


class Call(NamedTuple):
    """One thing that a user sends, with the ids of its tasks."""

    signature: Any
    options: dict[str, Any]
    ids: Sequence[str]


class Calls:
    """Makes calls of all kinds; `expected` has their tasks by id."""

    def __init__(self, seed: int) -> None:
        self.expected: dict[str, Expected] = {}
        self._chance, self._numbers = random.Random(seed), count()
        kinds = {
            self._plain: 24, self._later: 8, self._flaky: 8, self._failing: 2, self._linked: 4,
            self._chain: 8, self._broken_chain: 2, self._group: 2, self._chord: 8,
            self._nested: 6, self._long: 6, self._broken_chord: 2, self._swapped: 4,
            self._broken_part: 2,
        }  # fmt: skip
        self._kinds, self._weights = [*kinds], [*kinds.values()]

    def make(self, tasks: int) -> Iterator[Call]:
        """Yield calls until they have so many tasks."""
        while (known := len(self.expected)) < tasks:
            [kind] = self._chance.choices(self._kinds, self._weights)
            self._kind = kind.__name__.strip("_")
            made = kind()
            signature, options = made if isinstance(made, tuple) else (made, {})
            new = islice(self.expected.items(), known, None)
            yield Call(signature, options, [id for id, each in new if not each.is_optional])

    def _task(self, task: Any, *args: Any, **expected: Any) -> Any:
        """Return a signature with an id of its own."""
        id = f"{self._kind}-{next(self._numbers)}"
        self.expected[id] = Expected(**expected)
        return task.s(*args).set(task_id=id)

    def _add(self, y: int = 1) -> Any:
        x = self._chance.randrange(1000)
        return self._task(proj.add, x, y, value=x + y)

    def _then(self, before: Any, task: Any, *args: Any, by: int = 1, **expected: Any) -> Any:
        """Return what gets the value of `before`; it adds so much to that."""
        if not expected:
            expected["value"] = self._value(before) + by
        return self._task(task, *args, sent_by=[id_of(before)], **expected)

    def _value(self, *signatures: Any) -> Any:
        return sum(self.expected[id_of(each)].value for each in signatures)

    # ---------------------------------------------------------------- the kinds

    def _plain(self) -> Any:
        return self._add()

    def _later(self) -> Any:
        return self._add(), {"countdown": self._chance.uniform(0.1, 2.0)}

    def _flaky(self) -> Any:
        """At once, as a new message, or for so long that the message goes back."""
        fails, countdown = self._chance.choice([(1, 0), (2, 0.1), (1, 1.2)])
        return self._task(proj.flaky, 5, fails, countdown, value=5)

    def _failing(self) -> Any:
        return self._task(proj.fail, 1, fails="ValueError")

    def _linked(self) -> Any:
        first = self._add()
        value = self._value(first) + 1
        return first, {"link": self._then(first, proj.add, 1, value=value, is_optional=True)}

    def _chain(self) -> Any:
        first = self._add()
        second = self._then(first, proj.flaky, 1, 0, by=0)
        third = self._then(second, proj.add, 1)
        return chain(first, second, third, self._then(third, proj.add, 1))

    def _broken_chain(self) -> Any:
        first = self._add()
        second = self._then(first, proj.fail, fails="ValueError")
        return chain(first, second, self._then(second, proj.add, 1, fails="ValueError"))

    def _group(self) -> Any:
        return group([self._add() for _ in range(4)])

    def _body(self, *header: Any) -> Any:
        return self._task(proj.total, value=self._value(*header), header=[*map(id_of, header)])

    def _chord(self) -> Any:
        header = [self._add() for _ in range(5)]
        return chord(header, self._body(*header))

    def _nested(self) -> Any:
        """A chord of a task, a group, a chain and a chord."""
        tasks = [self._add() for _ in range(6)]
        last = self._then(tasks[3], proj.add, 1)
        inner = self._body(*tasks[4:])
        header = [
            tasks[0], group(tasks[1:3]), chain(tasks[3], last), chord(tasks[4:], inner),
        ]  # fmt: skip
        return chord(header, self._body(*tasks[:3], last, inner))

    def _long(self) -> Any:
        """A chain with a group in it, which makes that the header of a chord."""
        first = self._add()
        header = [self._then(first, proj.add, n, by=n) for n in range(3)]
        body = self._body(*header)
        return chain(first, group(header), body, self._then(body, proj.add, 1))

    def _broken_chord(self) -> Any:
        """What follows its body fails, too."""
        header = [self._add(), self._task(proj.fail, 1, fails="ValueError")]
        body = self._task(proj.total, fails="ChordError", header=[*map(id_of, header)])
        return chain(group(header), body, self._then(body, proj.add, 1, fails="ChordError"))

    def _broken_part(self) -> Any:
        """A chord of a chain that fails: its body is told by the step that did."""
        first = self._add()
        second = self._then(first, proj.fail, fails="ValueError")
        last = self._then(second, proj.add, 1, fails="ValueError")
        header = [self._add(), last]
        body = self._task(proj.total, fails="ChordError", header=[*map(id_of, header)])
        return chord([header[0], chain(first, second, last)], body)

    def _swapped(self) -> Any:
        """A task that goes on as a chord, whose body ends under the task's id."""
        swap = self._task(proj.swap, 1, 2, 3)
        id = id_of(swap)
        header = {f"{id}.{n}": Expected(n + 1, sent_by=[id], is_optional=True) for n in (1, 2, 3)}
        self.expected |= {id: Expected(9, header=[*header]), **header}
        return swap


def id_of(signature: Any) -> str:
    """Return the id of a signature's task."""
    id: str = signature.options["task_id"]
    return id
