"""Who has the helm: the consumer's thread, or a slot while that waits."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace

import pytest
from helpers import BOUND

from fsdf_engine.following import Following


class Line(SimpleNamespace):
    """As much of an early consumer's line as is asked for."""

    def __init__(self) -> None:
        super().__init__(line=deque(), group=())

    def __len__(self) -> int:
        return len(self.line)


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
            self.pool, self.early, self.admit, lambda ahead: 0, self.told("failed"),
            self.told("rouse"),
        )  # fmt: skip
        self.error, self.got = None, None
        self.thread = threading.Thread(target=self.wait)

    def told(self, name):
        return lambda *given: self.said.append((name, *given))

    def admit(self, deliveries):
        if self.error:
            raise self.error
        self.following.submit(deliveries)

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
    scene.thread.start()
    assert scene.sub.waits.wait(BOUND)
    scene.following.begin()
    assert scene.following.leads
    scene.sub.go.set()
    scene.thread.join(0.05)
    assert scene.got is None  # it waits for us
    scene.following.place().append("next")
    scene.following.end()
    assert scene.said == [("follow", ["next"])]
    assert not scene.following.leader
    scene.end()


def test_only_the_slot_that_has_it_leads(scene):
    scene.thread.start()
    assert scene.sub.waits.wait(BOUND)
    scene.following.begin()
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
    scene.thread.start()
    assert scene.sub.waits.wait(BOUND)
    scene.error = OSError("away")
    scene.following.begin()
    scene.following.place().append("next")
    scene.following.end()
    assert scene.said == [("failed", scene.error), ("rouse",)]
    scene.end()


def test_what_there_is_no_room_for_is_left_to_the_consumer(scene):
    scene.thread.start()
    assert scene.sub.waits.wait(BOUND)
    scene.early.line.append("job")
    scene.following.begin()
    scene.following.place().append("next")
    scene.following.end()
    assert scene.said[-1] == ("rouse",)
    scene.end()
