"""What a server has answered for of what one channel has published."""

from __future__ import annotations

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

    def answer(self, error: Exception | None) -> Confirmed:
        """Tell about the batch, by places in it, and forget it."""
        parts = (self._refused, self._returned, self._open)
        refused, back, unknown = (sorted({n - self._first - 1 for n in part}) for part in parts)
        self._first, self._low = self._last, self._last + 1
        self._open, self._keys, self._refused, self._returned = set(), {}, [], []
        return Confirmed(refused, back, unknown, error)
