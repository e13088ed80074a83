"""The keeper: renews every lease that we hold, and knows which ones we have lost."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ..contracts import Job, Subscription
from ..errors import Unavailable
from ..green import Event, native_thread

__all__ = ["Keeper"]
log = logging.getLogger("fsdf.lease")
AGAIN = 60.0  # seconds after which an outage is told again


class _Request:
    """Somebody waits for leases to be extended now."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = Event()
        self.error: Exception | None = None


class Keeper:
    """Owns one thread, a native one also under a hub: a greenlet that computes must not end leases.

    `held`, `lost` and `acked` change by single set operations, atomic in themselves: the consumer
    adds to `held`, the outbox drops from both, the keeper's thread fills `lost`. `acked` are those
    that nobody leases any more, and whose end is not stored yet. `settling` and `leaving` are what
    the outbox settles and the consumer acknowledges now: the broker may have forgotten it, and that
    it did so is not heard yet, which is no loss.
    """

    def __init__(self, subscription: Subscription, lease: float, alive: Callable[[], bool]) -> None:
        self._subscription, self._lease, self._alive = subscription, lease, alive
        self.tend: Callable[[], None] = lambda: None  # whenever leases have been renewed
        self.timed = True  # a lease ends at a deadline, never before it
        self.held: set[Job] = set()
        self.lost: set[Job] = set()
        self.acked: set[Job] = set()
        self.settling: Sequence[Job] = ()
        self.leaving: Sequence[Job] = ()
        self._confirmed = time.monotonic()  # all held leases were ours then
        self._requests: deque[_Request] = deque()
        self._wakeup, self._stopping = Event(), False
        self._thread = native_thread(self._loop, "fsdf-keeper")

    def drop(self, jobs: Iterable[Job]) -> None:
        """Forget jobs whose leases have ended."""
        self.held.difference_update(jobs)
        if self.lost:
            self.lost.difference_update(jobs)

    def settled(self, jobs: Iterable[Job]) -> None:
        """Forget what of `settling` has got through."""
        self.drop(jobs)
        self.settling = ()

    def acknowledged(self, jobs: Iterable[Job]) -> None:
        """Know that these are ours without a lease, until the outbox has stored how they ended."""
        self.acked.update(jobs)
        self.drop(jobs)
        self.leaving = ()

    def tell_lost(self, jobs: Iterable[Job]) -> None:
        """Name with their bodies those that nobody leases and that nothing is stored of."""
        for job in self.acked.intersection(jobs):
            log.error(
                "queue %s: message %s is lost: it is acknowledged, and its end is not stored: %r",
                job.plan.queue, job.id, job.delivery.body,
            )  # fmt: skip
        self.acked.difference_update(jobs)

    def ours_until(self) -> float:
        """Return an instant of `time.monotonic()` before which no lease of ours can have ended."""
        return self._confirmed + self._lease if self.timed else 0.0

    def confirm(self, *, anew: bool = False) -> None:
        """Extend at once if nobody could for a whole lease (SIGSTOP, a C loop with the GIL).

        With `anew` in any case: what was acknowledged unheard is no longer ours then.

        Raises:
            Unavailable: nothing is known of our leases.
        """
        if time.monotonic() - self._confirmed <= self._lease and not anew:
            return
        request = _Request()
        self._requests.append(request)
        self._wakeup.set()
        request.done.wait()
        if request.error:
            raise request.error

    def extend(self) -> None:
        """Renew all; what the broker does not confirm is lost. One round trip. Keeper's thread."""
        started, jobs = time.monotonic(), self.held.copy()
        if jobs:
            kept = set(self._subscription.extend([job.delivery.lease for job in jobs]))
            ending = {*self.settling, *self.leaving}  # before `held`, which they leave first
            lost = ({job for job in jobs if job.delivery.lease not in kept} - ending) & self.held
            if fresh := lost - self.lost:
                log.warning("%d leases are lost; their outcomes will be dropped", len(fresh))
                self.lost |= fresh
                self.lost &= self.held  # what was settled meanwhile is forgotten, not lost
        self._confirmed = started

    def close(self) -> None:
        """Renew no more. When the outbox has ended."""
        self._stopping = True
        self._wakeup.set()
        self._thread.join()

    def _loop(self) -> None:
        told = -AGAIN
        while not self._stopping:
            asked = self._wakeup.wait(self._lease / 3)
            self._wakeup.clear()
            requests = [self._requests.popleft() for _ in range(len(self._requests))]
            error: Exception | None = None
            try:
                if requests or (not asked and self._alive()):
                    self.extend()
                    if not requests:  # nobody waits
                        self.tend()
                elif not asked:
                    log.error("the pool does not answer; its leases are not renewed")
            except Exception as caught:  # a loop's edge: the next turn tries again
                error, now = caught, time.monotonic()
                # others tell of an outage; here it matters once leases may have ended
                outlasts = now - self._confirmed > self._lease or not isinstance(error, Unavailable)
                if outlasts and now - told > AGAIN:
                    log.warning("leases cannot be renewed, it is tried again: %s", error)
                    told = now
            else:
                told = -AGAIN
            for request in requests:
                request.error = error
                request.done.set()
