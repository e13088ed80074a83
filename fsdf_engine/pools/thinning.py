"""Which children of a process pool end because there is nothing for them to do."""

from __future__ import annotations

from collections.abc import Sequence

from .pool_child import PoolChild

__all__ = ["Thinning"]


class Thinning:
    """A child ends after `keep_alive` seconds without a job, while more than `least` are left.

    With 0 seconds all stay. The pool's thread uses it.
    """

    def __init__(self, least: int, keep_alive: float) -> None:
        self._least, self._keep_alive = max(0, least), keep_alive
        self._idle: dict[PoolChild, tuple[int, float]] = {}  # jobs in its life, idle since

    def surplus(self, children: Sequence[PoolChild], now: float) -> list[PoolChild]:
        """Look at the children, and return those that are to end now. O(children)."""
        if not self._keep_alive:
            return []
        before, usable = self._idle, [child for child in children if child.usable]
        self._idle = {}
        for child in usable:
            if not child.jobs:
                given, since = before.get(child, (-1, now))
                self._idle[child] = child.given, (since if given == child.given else now)
        late = [child for child, (_, at) in self._idle.items() if at + self._keep_alive <= now]
        return late[max(0, self._least - len(usable) + len(late)) :]

    def due(self, children: Sequence[PoolChild]) -> list[float]:
        """Return when the next look is worth it: none while no more are left than may stay."""
        if not self._idle or sum(child.usable for child in children) <= self._least:
            return []
        return [min(since for _, since in self._idle.values()) + self._keep_alive]
