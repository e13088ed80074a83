"""The outbox: a group commit. Outcomes become effects, effects are stored together, then we settle.

Batches form by themselves: while one flush is in flight, the next collects; no timer, no size to
tune. Order inside a flush: publishes, results, settle. What fails is kept and repeated with
backoff: `Unavailable` blames nobody; any other error is narrowed down to the item at fault, which
becomes a dead letter after five failures of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ..contracts import Broker, Effect, Job, Outgoing, Record, ResultStore, Settlement, Subscription
from ..errors import LeaseLost, PublishError, Unavailable
from ..outcomes import ACK, SUCCEEDED, DeadLetter, Outcome, Succeeded
from .ending import give_effects, give_verdict
from .lease import Keeper
from .listeners import Listeners

__all__ = ["Outbox"]
log = logging.getLogger("fsdf.outbox")
T = TypeVar("T")
LIMIT = 1000  # items a flush takes
TRIES = 5
BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True, eq=False, repr=False)
class Commit:
    """Effects (or an early acknowledgement) that somebody waits for in the middle of a run."""

    job: Job
    effects: Sequence[Effect]
    ack: bool
    tell: Callable[[], object]
    error: BaseException | None = None
    tries: int = 0

    @property
    def delivery(self) -> Any:
        """The message, as a job has it."""
        return self.job.delivery


Item: TypeAlias = Job | Commit


class Outbox:
    """Owns one thread. `settled` and `ended` are written by that thread only."""

    def __init__(
        self,
        broker: Broker,
        subscription: Subscription,
        results: ResultStore | None,
        keeper: Keeper,
        flushed: Callable[[], None],
        listeners: Listeners | None = None,
        *,
        place: tuple[str, str] = ("", ""),
        slots: int = 0,
    ) -> None:
        self.place, self.slots = place, slots  # what `push` and `get` inside a run ask
        self.broker, self._subscription, self.results = broker, subscription, results
        self._keeper, self._flushed = keeper, flushed
        self._listeners = listeners if listeners and listeners.wants("run_ended") else None
        self._done: deque[Item] = deque()
        self._kept: list[Item] = []  # failed, to be repeated
        self._failures = 0  # flushes in a row that something kept from being stored
        self._commits = 0  # how many of `_done` are no jobs
        self._counting = threading.Lock()
        self._parked, self._bell = False, threading.Event()
        self._deadline: float | None = None  # set by close
        self._lost: set[object] = set()  # what the last settle has found to be no longer ours
        self._closed = False  # the thread has ended
        self.settled = self.ended = self.flushes = 0
        self._thread = threading.Thread(target=self._loop, name="fsdf-outbox", daemon=True)
        self._thread.start()

    def put(self, item: Item, /) -> None:
        """Hand over a finished job. Any thread; never blocks."""
        self._done.append(item)
        if self._parked:
            self._parked = False
            self._bell.set()

    def commit(self, job: Job, effects: Sequence[Effect], *, ack: bool = False) -> None:
        """Block until the effects are stored, in a flush shared with all other slots.

        Raises:
            LeaseLost: another worker has the message; stop.
            PublishError: the broker does not take a message.
        """
        stored = threading.Event()
        item = self._put_commit(job, effects, ack, stored.set)
        stored.wait()
        if item.error:
            raise item.error

    async def acommit(self, job: Job, effects: Sequence[Effect], *, ack: bool = False) -> None:
        """As `commit`, for a run on a loop."""
        import asyncio

        loop, stored = asyncio.get_running_loop(), asyncio.Event()
        item = self._put_commit(job, effects, ack, lambda: loop.call_soon_threadsafe(stored.set))
        await stored.wait()
        if item.error:
            raise item.error

    def _put_commit(
        self, job: Job, effects: Sequence[Effect], ack: bool, tell: Callable[[], object]
    ) -> Commit:
        item = Commit(job, list(effects), ack, tell)
        with self._counting:
            self._commits += 1
        self.put(item)
        if self._closed:
            self._refuse(item)
        return item

    def last_ended(self) -> int:
        """Count the jobs that have ended, stored or not."""
        return self.ended + max(0, len(self._done) - self._commits)

    def close(self, timeout: float) -> int:
        """Flush for at most `timeout` seconds; return how many items were left to their leases."""
        self._deadline = time.monotonic() + timeout
        self._bell.set()
        self._thread.join()
        self._closed = True  # before looking: who commits from now on looks after putting
        for item in (left := [*self._kept, *self._done]):
            if isinstance(item, Commit):
                self._refuse(item)
        return len(left)

    def _refuse(self, item: Commit) -> None:
        self._tell(item, Unavailable("the worker stopped before these effects were stored"))

    def _loop(self) -> None:
        while items := self._take():
            try:
                self._flush(items)
            except Exception as error:  # a loop's edge, before anything was stored: all is repeated
                log.warning("cannot store %d items: %r", len(items), error)
                self._kept = items
            if self._failures and not self._kept:
                log.warning("what could not be stored is stored now")
            self._failures = self._failures + 1 if self._kept else 0
            self.flushes += 1
            self._flushed()

    def _take(self) -> list[Item]:
        """Return what there is to flush; blocks until there is something. Empty: we are closed."""
        if self._failures:
            pause = BACKOFF[min(self._failures, len(BACKOFF)) - 1]
            if self._deadline is not None:
                pause = min(pause, 0.05)
            self._bell.clear()
            self._bell.wait(pause)  # rung only by close: nobody sees us parked
            if self._deadline and time.monotonic() > self._deadline:
                return []
        while not self._done and not self._kept:
            if self._deadline is not None:
                return []
            self._parked = True
            if not self._done and self._deadline is None:
                self._bell.wait()
            self._parked = False
            self._bell.clear()
        take = self._done.popleft
        fresh = [take() for _ in range(min(len(self._done), LIMIT - min(LIMIT, len(self._kept))))]
        self._prepare(fresh)
        items, self._kept = self._kept + fresh if self._kept else fresh, []
        return items

    def _prepare(self, items: Sequence[Item]) -> None:
        """Turn outcomes into verdicts and effects, and count what has ended."""
        now, jobs = time.time(), 0
        for item in items:
            if type(item) is Job:
                jobs += 1
                item.tries = 0
                item.effects = ()
                if item.outcome is SUCCEEDED:
                    item.verdict = ACK
                else:
                    give_verdict(item, now)
                if item.plan.sinks or item.acked:
                    give_effects(item, now)
        self.ended += jobs
        if jobs != len(items):
            with self._counting:
                self._commits -= len(items) - jobs

    def _flush(self, items: list[Item]) -> None:
        """Store, then settle. Whatever does not get through is in `_kept` afterwards. Blocks."""
        self._keeper.confirm()
        if self._keeper.lost:
            items = self._drop_lost(items)
        waiting = [item for item in items if item.effects]
        ready = items
        if waiting:
            ready = [item for item in items if not item.effects]
            stored = self._store(waiting, _publishes, self.broker.publish)
            for item in stored:  # not published again if the next step fails
                item.effects = _records([item])
            write = self.results.write if self.results else _nowhere
            stored = self._store(stored, _records, write)
            for item in stored:
                item.effects = ()
            ready += stored
        self._settle_ready(ready)

    def _settle_ready(self, ready: Sequence[Item]) -> None:
        jobs: list[Item] = []
        for item in ready:
            if isinstance(item, Commit) and not item.ack:
                self._tell(item)
            else:
                jobs.append(item)
        unsettled = [item for item in jobs if type(item) is not Job or not item.acked]
        self._lost.clear()
        done = self._store(unsettled, _settlements, self._settle)
        for kept in self._kept:
            if type(kept) is Commit and kept.ack:  # a repeat may find lost what this has settled
                kept.tries = max(1, kept.tries)
        self._keeper.drop([item.job if isinstance(item, Commit) else item for item in done])
        if len(unsettled) != len(jobs):
            done = done + [item for item in jobs if type(item) is Job and item.acked]
        count = 0
        for item in done:
            if type(item) is Job:
                count += 1
            elif item.delivery.lease in self._lost and not item.tries:
                self._keeper.held.add(item.job)  # its outcome is another worker's, too
                self._keeper.lost.add(item.job)
                self._tell(item, LeaseLost(f"the lease of message {item.job.id} was lost; stop"))
            else:
                item.job.acked = True
                self._tell(item)
        self.settled += count
        for item in done:
            if type(item) is Job and type(outcome := item.outcome) is not Succeeded:
                item.outcome = SUCCEEDED  # an error holds its frames, and they hold the job
                self._emit(item, outcome)
            elif self._listeners and type(item) is Job:
                self._emit(item, item.outcome)

    def _emit(self, job: Job, outcome: Outcome) -> None:
        if self._listeners:
            self._listeners.emit("run_ended", job=job, outcome=outcome)

    def _store(
        self,
        items: list[Any],
        pick: Callable[[Sequence[Any]], list[T]],
        write: Callable[[Sequence[T]], object],
    ) -> list[Any]:
        """Write what `pick` finds in the items; return what got through, halving on errors."""
        try:
            if effects := pick(items):
                write(effects)
            return items
        except Unavailable as error:
            if not self._failures:  # once per outage
                log.warning("cannot store %d items, will try again: %s", len(items), error)
            self._kept += items
        except Exception as error:
            if isinstance(error, PublishError) and _names(items, error):
                return self._sort(items, error)
            if len(items) > 1:
                half = len(items) // 2
                first = self._store(items[:half], pick, write)
                return first + self._store(items[half:], pick, write)
            self._blame(items[0], error)
        return []

    def _sort(self, items: list[Any], error: PublishError) -> list[Any]:
        """Return the items of which everything is stored; what is stored is not sent again."""
        rejected, unknown = set(map(id, error.rejected)), set(map(id, error.unknown))
        stored: list[Any] = []
        for item in items:
            left = [e for e in item.effects if type(e) is Record or id(e) in rejected | unknown]
            no = [e for e in left if id(e) in rejected]
            perhaps = [e for e in left if id(e) in unknown]
            if not no and not perhaps:
                stored.append(item)
                continue
            if type(item) is Job:
                item.effects = left
            self._blame(item, PublishError(no, perhaps))
        return stored

    def _blame(self, item: Item, error: Exception) -> None:
        item.tries += 1
        ambiguous = isinstance(error, PublishError) and not error.rejected
        if item.tries >= TRIES or (type(item) is Commit and ambiguous):
            log.error("an effect failed %d times: %r", item.tries, error)
            settling, item.effects = not item.effects, ()
            if type(item) is not Job:
                return self._tell(item, error)
            if type(item.verdict) is DeadLetter and settling:  # not even that: its lease ends it
                self._keeper.drop([item])
                self.settled += 1
                return None
            if type(item.verdict) is not DeadLetter:
                item.verdict = DeadLetter(f"an effect failed {TRIES} times: {error!r}")
        self._kept.append(item)
        return None

    def _settle(self, batch: Sequence[Settlement]) -> None:
        if lost := self._subscription.settle(batch):
            self._lost.update(lost)
            log.warning("%d leases were lost before they were settled", len(lost))

    def _drop_lost(self, items: list[Item]) -> list[Item]:
        """Forget outcomes of lost leases before their effects: another worker has the message."""
        kept: list[Item] = []
        gone: list[Job] = []
        for item in items:
            job = item.job if isinstance(item, Commit) else item
            if job not in self._keeper.lost or job.acked:
                kept.append(item)
            elif type(item) is Job:
                gone.append(item)
            else:
                self._tell(item, LeaseLost(f"the lease of message {job.id} was lost; stop"))
        self._keeper.drop(gone)
        self.settled += len(gone)
        return kept

    def _tell(self, item: Item, error: BaseException | None = None) -> None:
        if isinstance(item, Commit):
            item.error = error
            with suppress(RuntimeError):  # its loop has been closed: nobody waits there any more
                item.tell()


def _names(items: Sequence[Item], error: PublishError) -> bool:
    """Say whether the error tells of these items' own messages what became of them."""
    ours = {id(e) for item in items for e in item.effects}
    named = {id(e) for group in (error.rejected, error.unknown) for e in group}
    return bool(named) and named <= ours


def _publishes(items: Sequence[Item]) -> list[Outgoing]:
    return [e for item in items for e in item.effects if type(e) is Outgoing]


def _records(items: Sequence[Item]) -> list[Record]:
    return [e for item in items for e in item.effects if type(e) is Record]


def _settlements(items: Sequence[Item]) -> list[Settlement]:
    return [(item.delivery.lease, item.verdict if type(item) is Job else ACK) for item in items]


def _nowhere(_: object) -> None:
    """No result store is configured."""
