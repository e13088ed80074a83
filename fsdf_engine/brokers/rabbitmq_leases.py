"""What a channel has brought: which of it is leased, and what is acknowledged by one frame."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..outcomes import State
from .amqp_client import Received
from .rabbitmq_server import Shape

__all__ = ["Lease", "Tags"]


class Lease:
    """One message that was handed out. `held` is its tag where it is held, 0: where it came."""

    __slots__ = ("at", "held", "id", "lost", "message", "properties_of", "shape", "state")

    def __init__(
        self,
        message: Received,
        id: str,
        lost: int,
        state: State | None,
        shape: Shape,
        properties_of: Callable[[Received], dict[str, Any]],
    ) -> None:
        self.message, self.id, self.lost, self.state = message, id, lost, state
        self.shape, self.properties_of = shape, properties_of
        self.at, self.held = time.monotonic(), 0

    def properties(self) -> dict[str, Any]:
        """Return the properties that it came with."""
        return self.properties_of(self.message)


class Tags:
    """The delivery tags of one channel that are outstanding, in order. One thread."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()  # of `_order`: acknowledged or given back
        self.last = 0  # that has come

    def came(self, tag: int) -> None:
        """Know of the next delivery."""
        self._order.append(tag)
        self.last = tag

    def first(self) -> int:
        """Return a tag below which nothing is outstanding."""
        while self._order and self._order[0] in self._done:
            self._done.discard(self._order.popleft())
        return self._order[0] if self._order else self.last + 1

    def returned(self, tags: Iterable[int]) -> None:
        """Know that these were given back one by one."""
        self._done.update(tags)

    def acked(self, tags: Iterable[int]) -> tuple[int, list[int]]:
        """Return the tag up to which all can be acknowledged at once, or 0, and those to do singly.

        All up to it is done, by this call or before.
        """
        fresh, order, done, last = set(tags), self._order, self._done, 0
        done |= fresh
        while order and order[0] in done:
            tag = order.popleft()
            done.discard(tag)
            if tag in fresh:
                last = tag
                fresh.discard(tag)
        return last, sorted(fresh)
