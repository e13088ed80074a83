"""Who may fetch for a pool that several consumers share: together no more than it can use.

Each counts as holding slots what it has in the pool beyond its own prefetch. What is free goes to
the one that waits and holds the fewest slots; of several, to the one served longest ago. A queue
that is empty, paused or cannot be reached is not waiting, and what it doesn't use is the others'.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import TypeAlias

from ..contracts import Pool

__all__ = ["Grants", "Share"]
Count: TypeAlias = Callable[[], int]
Call: TypeAlias = Callable[[], None]


class Share:
    """One consumer's part of a pool; `ask` and `rest` belong to its thread.

    A grant counts as held from `ask` until `took` or `rest`; what has been fetched by then counts
    by itself. With one consumer nothing is locked.
    """

    def __init__(
        self, pool: Pool, ceiling: int, in_pool: Count, held: Count, wake: Call, rouse: Call
    ) -> None:
        self.grants: Grants = vars(pool).setdefault("grants", Grants(pool.size))
        self.ceiling, self.in_pool, self.held, self.wake = ceiling, in_pool, held, wake
        self.granted = self.depth = self.turn = 0
        self.waits = self.left = False
        self._pool, self.rouse = pool, rouse

    def join(self) -> None:
        """Count from now on."""
        self.grants.join(self)

    def ask(self, wanted: int, worth: int, depth: int) -> int:
        """Return how many of `wanted` may be fetched; none: `wake` is called when there may be.

        `worth` or fewer are none, or a part of it where others wait.
        """
        self.depth = depth
        if self.grants.alone:
            self.granted, self.waits = wanted if wanted > worth else 0, wanted > 0
            return self.granted
        return self.grants.ask(self, wanted, worth)

    def took(self, count: int, more: bool = True) -> None:
        """So many were fetched. It goes on waiting if that is all it could get, and wants `more`
        at once: else others would have what its quick runs free before it asks."""
        if more and count >= self.granted:
            self.granted = 0
        else:
            self.rest()

    def rest(self) -> None:
        """Give back what is granted, and wait for nothing."""
        self.granted, self.waits = 0, False
        self.grants.wake()

    def leave(self) -> None:
        """Rest for good; what still runs is counted until it ends."""
        self.left = True
        self.rest()

    def made(self) -> None:
        """Wake it, and who is next: something has ended. Any thread."""
        self.wake()
        self.grants.wake()

    def disown(self) -> None:
        """In a forked child the others are the parent's, and the lock may be held."""
        vars(self._pool).pop("grants", None)


class Grants:
    """Shares of one pool; `_lock` guards their grants and turns. Nothing blocks under it."""

    def __init__(self, size: int) -> None:
        self._size, self._lock, self._turns = size, threading.Lock(), count(1)
        self._shares: tuple[Share, ...] = ()
        self.alone = True

    def join(self, share: Share) -> None:
        """Add one more; from the second on they ask. Blocks where the first one is to know."""
        with self._lock:
            self._shares += (share,)
            self.alone = len(self._shares) == 1
        if len(self._shares) == 2 and not (first := self._shares[0]).left:
            first.rouse()  # it may wait for as much as the whole pool can take

    def ask(self, share: Share, wanted: int, worth: int) -> int:
        """Grant some of `wanted`; see `Share.ask`."""
        if share.granted and wanted > 0:
            return min(share.granted, wanted)
        with self._lock:
            share.granted, share.waits = 0, wanted > 0
            line = self._line()
            first, free, ahead = line[0] if line else (None, 0, 0)
            if first is share and min(free, wanted) > worth // len(line):
                slots = max(0, free - ahead)  # what others want, too
                share.granted = min(free, wanted, ahead - (-slots // len(line)))
                share.turn = next(self._turns)
                del line[0]
        if line and line[0][0] is not share:
            line[0][0].wake()
        return share.granted

    def wake(self) -> None:
        """Wake the first of those that wait, if something is free. Any thread."""
        if not self.alone:
            with self._lock:
                line = self._line()
            if line:
                line[0][0].wake()

    def _line(self) -> list[tuple[Share, int, int]]:
        """Return, in their order, who waits and could get something, how much, and how much of that
        is of its own prefetch. O(shares)."""
        self._shares = tuple(s for s in self._shares if not s.left or s.in_pool() > 0)
        self.alone = len(self._shares) == 1
        held = [(share, share.in_pool() + share.granted) for share in self._shares]
        slots = self._size - sum(max(0, have - share.depth) for share, have in held)
        most = self._size + max((s.ceiling for s in self._shares), default=0)
        most -= sum(share.held() + share.granted for share in self._shares)
        line = []
        for share, have in held:
            ahead = max(0, share.depth - have)
            if share.waits and (free := min(most, slots + ahead)) > 0:
                line.append((max(0, have - share.depth), share.turn, (share, free, ahead)))
        return [found for *_, found in sorted(line, key=lambda at: at[:2])]
