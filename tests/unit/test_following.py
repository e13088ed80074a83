"""Who has the helm: the consumer's thread, or a slot while that waits."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace

import pytest
from helpers import BOUND

from fsdf_engine.contracts import Mark
from fsdf_engine.following import Following


class Line(SimpleNamespace):
    """As much of an early consumer's line as is asked for."""

    def __init__(self) -> None:
        self.marks = []
        super().__init__(line=deque(), group=(), marking=self)

    def __len__(self) -> int:
        return len(self.line)

    def foresee(self, jobs):
        return Mark("m", b"", 1.0) if "early" in jobs else None

    def foreseen(self, jobs):
        self.marks.append(("put", jobs))

    def told(self):
        self.marks.append("perhaps")

    def choose(self, count):
        self.group = [self.line.popleft() for _ in range(count)]

    def acknowledge(self):
        group, self.group = self.group, ()
        return group


class Waiting:
    """A subscription whose wait ends when it is let go."""

    def __init__(self) -> None:
        self.waits, self.go = threading.Event(), threading.Event()

    def fetch_next(self, limit, max_bytes, timeout):
        self.waits.set()
        assert self.go.wait(BOUND)
        return [limit, max_bytes, timeout]


class Scene:
    """A consumer's thread that waits, and what the one who follows is told."""

    def __init__(self) -> None:
        self.sub, self.early, self.said = Waiting(), Line(), []
        self.pool = SimpleNamespace(follow=self.told("follow"), submit=self.told("submit"))
        self.following = Following(self.sub).join(
            self.pool, self.early, lambda deliveries: (deliveries, []), self.admit,
            lambda ahead: 0, self.told("failed"), self.told("rouse"),
        )  # fmt: skip
        self.error, self.got = None, None
        self.thread = threading.Thread(target=self.wait)

    def told(self, name):
        return lambda *given: self.said.append((name, *given))

    def admit(self, jobs, answers, acknowledged):
        if self.error:
            raise self.error
        if "early" in jobs:
            self.early.line.extend(jobs)
        else:
            self.following.submit(jobs)

    def lead(self):
        """Take the place of the thread that waits."""
        self.thread.start()
        assert self.sub.waits.wait(BOUND)
        self.following.begin()

    def lease(self, what, *, acknowledged=False):
        """Have a store lease it."""
        place = self.following.place()
        place.foresee(what)
        place.take(acknowledged=acknowledged)

    def wait(self):
        self.got = self.following.fetch_next(1, 2, 3.0)

    def end(self):
        """Let the wait end, which has to wait for whom it let in."""
        self.sub.go.set()
        self.thread.join(BOUND)
        assert self.got == [1, 2, 3.0]


@pytest.fixture
def scene():
    scene = Scene()
    yield scene
    scene.sub.go.set()


def test_nobody_is_let_in_while_the_consumer_is_at_work(scene):
    scene.following.begin()
    assert not scene.following.leads
    assert scene.following.place() is None
    scene.following.end()
    scene.following.submit(["job"])
    assert scene.said == [("submit", ["job"])]


def test_while_it_waits_a_slot_takes_its_place(scene):
    scene.lead()
    assert scene.following.leads
    scene.sub.go.set()
    scene.thread.join(0.05)
    assert scene.got is None  # it waits for us
    scene.lease("next")
    scene.following.end()
    assert scene.said == [("follow", ["next"])]
    assert not scene.following.leader
    scene.end()


def test_only_the_slot_that_has_it_leads(scene):
    scene.lead()
    seen = []

    def other():
        scene.following.begin()
        seen.append(scene.following.leads)
        scene.following.end()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(BOUND)
    assert seen == [False]
    assert scene.following.leads
    scene.following.end()
    scene.end()


def test_trouble_is_told_and_the_helm_given_back(scene):
    scene.lead()
    scene.error = OSError("away")
    scene.lease("next")
    scene.following.end()
    assert scene.said == [("failed", scene.error), ("rouse",)]
    scene.end()


def test_what_there_is_no_room_for_is_left_to_the_consumer(scene):
    scene.lead()
    scene.early.line.append("job")
    scene.lease("next")
    scene.following.end()
    assert scene.said[-1] == ("rouse",)
    scene.end()


def test_what_is_acknowledged_by_who_leases_it_starts_though_there_is_no_room(scene):
    scene.lead()
    scene.lease("early", acknowledged=True)
    scene.following.end()
    assert scene.early.marks == [("put", ["early"])]
    assert scene.said == [("follow", ["early"])]
    scene.end()


def test_what_is_early_and_was_leased_only_waits_for_room(scene):
    scene.lead()
    scene.lease("early")
    scene.following.end()
    assert scene.early.marks == []
    assert scene.said == [("rouse",)]
    scene.end()


def test_a_mark_of_which_nothing_is_known_is_told_of(scene):
    scene.lead()
    scene.following.place().foresee("early")
    scene.following.doubt()
    scene.following.doubt()
    scene.following.place().foresee("late")
    scene.following.doubt()
    scene.following.end()
    assert scene.early.marks == ["perhaps"]
    assert scene.said == []
    scene.end()
