"""What a server has answered for of what one channel has published."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from .amqp_client import Confirmed, Publishing

__all__ = ["Confirms"]


class Confirms:
    """Counts the publishes of a channel in confirm mode, from 1, as the server does. One thread."""

    def __init__(self) -> None:
        self._first = self._last = 0  # of the batch, which begins after the first
        self._low = 1  # the lowest that may be open
        self._open: set[int] = set()
        self._keys: dict[tuple[str, str], list[int]] = {}
        self._refused: list[int] = []
        self._returned: list[int] = []
        # Of what was not written: the publish before it, and why.
        self._unfit: list[tuple[int, Exception]] = []

    @property
    def over(self) -> bool:
        """All is answered for."""
        return not self._open

    def expect(self, item: Publishing) -> None:
        """Know of the next publish."""
        self._last += 1
        self._open.add(self._last)
        key = (item.routing_key, item.properties["message_id"])
        self._keys.setdefault(key, []).append(self._last)

    def withdraw(self, item: Publishing, why: Exception) -> None:
        """Know that the one that was expected last cannot be written."""
        self._open.discard(self._last)
        self._keys[item.routing_key, item.properties["message_id"]].pop()
        self._last -= 1
        self._unfit.append((self._last, why))

    def answered(self, tag: int, multiple: bool, refused: bool) -> None:
        """Take an ack or a nack."""
        tags = range(self._low, tag + 1) if multiple else (tag,)
        if refused:
            self._refused += [n for n in tags if n in self._open]
        self._open.difference_update(tags)
        if multiple:
            self._low = tag + 1

    def returned(self, routing_key: str, message_id: str) -> None:
        """Take what no queue has."""
        self._returned += self._keys.get((routing_key, message_id), ())

    def answer(self, error: Exception | None, left: Iterable[Publishing] = ()) -> Confirmed:
        """Tell about the batch, by places in it, and forget it; `left` was not reached."""
        for item in left:
            self.expect(item)
        before, first = [sent for sent, _ in self._unfit], self._first
        unfit = {sent - first + n: why for n, (sent, why) in enumerate(self._unfit)}
        parts = (self._refused, self._returned, self._open)
        refused, back, unknown = (
            sorted({n - first - 1 + bisect_left(before, n) for n in part}) for part in parts
        )
        self._first, self._low = self._last, self._last + 1
        self._open, self._keys, self._refused, self._returned = set(), {}, [], []
        self._unfit = []
        return Confirmed(refused, back, unknown, error, unfit)
