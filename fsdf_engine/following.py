"""What comes next is leased with the end of what went before, and runs where that has ended.

A run whose end publishes into the queue of its own consumer, as a step of a chain does, would wake
the consumer's thread by its message, and that a slot. Where this thread only waits on the server,
the slot that stores the end takes its place: one round trip stores the end, publishes the message
and leases it, and no thread is changed. What is acknowledged early is so in that same round trip.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from .contracts import Delivery, Job, Mark, Pool, Subscription

if TYPE_CHECKING:
    from .core.early import Early
    from .core.gates import Answers

    Read: TypeAlias = tuple[list[Job], Answers]  # what may run of messages, and how others end

__all__ = ["Following"]


class Following:
    """Who has the helm may do what is the consumer's thread's.

    That thread has it, but while it waits in `fetch_next`; then a slot can take it. `leader` names
    the thread of that slot, 0 while there is none.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription, self.leader = subscription, 0
        self._read: Read = [], []  # what the leader may lease
        self._taken: bool | None = None  # whether it has, and acknowledged it
        self._foreseen = False  # there may be a mark of it
        self._helm = threading.Lock()
        self._helm.acquire()

    def join(
        self,
        pool: Pool,
        early: Early,
        open: Callable[[Sequence[Delivery]], Read],
        admit: Callable[[list[Job], Answers, bool], object],
        room: Callable[[int], int],
        failed: Callable[[Exception], object],
        rouse: Callable[[], object],
    ) -> Following:
        """Learn how the consumer takes what comes, and how it is told of trouble."""
        self._pool, self._early, self._open, self._admit = pool, early, open, admit
        self._room, self._failed, self._rouse = room, failed, rouse
        return self

    @property
    def leads(self) -> bool:
        """Whether the calling thread is a slot that has the helm."""
        return self.leader == threading.get_ident()

    def place(self) -> Following | None:
        """Return who takes what is leased for the calling thread, if it has the helm."""
        return self if self.leads else None

    def foresee(self, delivery: Delivery) -> Mark | None:
        """See `Follow`."""
        self._read = jobs, _ = self._open([delivery])
        mark = self._early.marking.foresee(jobs)
        self._foreseen = mark is not None
        return mark

    def take(self, *, acknowledged: bool) -> None:
        """See `Follow`."""
        self._taken = acknowledged
        if acknowledged:
            jobs, _ = self._read
            self._early.marking.foreseen(jobs)
        self._foreseen = False

    def doubt(self) -> None:
        """Know that what the calling thread has tried to lease perhaps is."""
        if self.leads and self._foreseen:
            self._foreseen = False
            self._early.marking.told()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let the pool have them; called by who has the helm."""
        (self._pool.follow if self.leads else self._pool.submit)(jobs)

    def fetch_next(self, limit: int, max_bytes: int, timeout: float) -> Sequence[Delivery] | None:
        """Wait as the subscription does; a slot may take the calling thread's place meanwhile."""
        self._helm.release()
        try:
            return self._subscription.fetch_next(limit, max_bytes, timeout)
        finally:
            self._helm.acquire()

    def begin(self) -> None:
        """Take the helm, if the consumer's thread waits. Called by a slot."""
        if self._helm.acquire(False):
            self.leader = threading.get_ident()

    def end(self) -> None:
        """See to what has been leased, and give the helm back. What is left is the consumer's."""
        if not self.leads:
            return
        done = False
        try:
            done = self._see_to(self._taken)
        except Exception as error:  # the edge: what came is given back, or looked at again
            self._failed(error)
        finally:
            self._taken, self._foreseen, self.leader = None, False, 0
            self._helm.release()
        if not done:
            self._rouse()

    def _see_to(self, acknowledged: bool | None) -> bool:
        """Let what has come start in the slot that is free now; say whether nothing is left."""
        if acknowledged is not None:
            self._admit(*self._read, acknowledged)
            if self._early.line and (acknowledged or self._room(0) > 0):
                self._early.choose(1)
                self.submit(self._early.acknowledge())
        return not self._early
