"""Inboxes of a result store, as the tests of all its subjects use them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest

from ..contracts import Inbox, Record, ResultStore

__all__ = ["BOUND", "InboxFixture", "Open", "Received", "connected", "nothing"]

BOUND = 20.0  # seconds; only a failing test reaches it
Open = Callable[..., tuple[Inbox, "Received"]]


class Received:
    """What an inbox delivered."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._over: set[str] = set()

    def __call__(self, id: str, body: bytes) -> None:
        with self._changed:
            if id not in self._over:
                self.bodies[id] = body
                self._changed.notify_all()

    def forget(self, id: str) -> None:
        """Have it never come, though it may come twice."""
        with self._changed:
            self._over.add(id)
            self.bodies.pop(id, None)

    def wait_for(self, *ids: str) -> dict[str, bytes]:
        """Block until all of these are there; return everything that came."""
        with self._changed:
            if not self._changed.wait_for(lambda: set(ids) <= set(self.bodies), BOUND):
                raise AssertionError(f"not delivered: {sorted(set(ids) - set(self.bodies))[:5]}")
            return dict(self.bodies)


def nothing() -> Sequence[str]:
    """Wait for no result in particular."""
    return ()


def connected(store: ResultStore, inbox: Inbox, received: Received, layout: str = "") -> None:
    """Block until the inbox receives; what came before, only `pending` would tell it."""
    probe = f"probe {uuid.uuid4().hex}"
    store.write([Record(probe, b"END ", layout=layout)])
    inbox.watch([probe])
    received.wait_for(probe)
    store.forget([probe], layout=layout)
    received.forget(probe)


class InboxFixture:
    """Opens inboxes for a test, and closes them and the store after it."""

    @pytest.fixture
    def open(self, store: ResultStore) -> Iterator[Open]:
        opened: list[Inbox] = []

        def inbox(
            pending: Callable[[], Sequence[str]] = nothing, layout: str = ""
        ) -> tuple[Inbox, Received]:
            received = Received()
            opened.append(store.inbox(received, pending, layout=layout))
            connected(store, opened[-1], received, layout)
            return opened[-1], received

        yield inbox
        for one in opened:
            one.close()
        store.close()
