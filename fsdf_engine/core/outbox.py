"""The outbox: a group commit. Outcomes become effects, effects are stored together, then we settle.

Batches form by themselves: while one flush is in flight, the next collects; no timer, no size to
tune. Order inside a flush: publishes, results, members of groups, settle. What fails is kept and
repeated with backoff: `Unavailable` blames nobody; any other error is narrowed down to the item at
fault, which becomes a dead letter after five failures of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from ..at_once import Settle, Ways
from ..contracts import Broker, Effect, Job, Report, ResultStore, Settlement, Subscription
from ..errors import LeaseLost, PublishError, Unanswered, Unavailable
from ..listeners import Listeners, tell_ends
from ..outcomes import DeadLetter, text_of
from . import commit as picks
from .commit import LATER, Commit, Item, names_all
from .ending import give_ends, give_up
from .lease import Keeper

if TYPE_CHECKING:
    from ..grouping import Grouping

__all__ = ["Outbox"]
log = logging.getLogger("fsdf.outbox")
Pick: TypeAlias = Callable[[Sequence[Any]], list[Any]]  # what a step stores of some items
Write: TypeAlias = Callable[[Sequence[Any]], object]
LIMIT = 1000  # items a flush takes
TRIES = 5
SILENT = 3  # flushes in a row of which a step was not answered, while the server answers else
BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Outbox:
    """Owns one thread. What an end changes is written by who has the turn: it, or a slot."""

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
        self.broker, self.results, self.ways = broker, results, Ways(broker, subscription, keeper)
        self._keeper, self._flushed, self.counted = keeper, flushed, True  # see Owner
        heard = listeners and listeners.wants("run_retried", "run_ended")
        self._listeners = listeners if heard else None
        self.report: Report | None = None
        self._groups: Grouping | None = None
        self._done: deque[Item] = deque()
        self._kept: list[Item] = []  # failed, to be repeated
        self._failures = 0  # flushes in a row that something kept from being stored
        self._silent: dict[Callable[..., Any], int] = {}  # likewise, without an answer, by step
        self._suspects: set[Item] = set()  # of `_kept`: not answered alone either; stored apart
        self._given_up: set[Item] = set()  # of `_kept`: their effects are that they failed
        self._commits = 0  # how many of `_done` are no jobs
        self._counting = threading.Lock()
        self._parked, self._wakeup = False, threading.Event()
        self._turn = threading.Lock()  # of who stores
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
            self._wakeup.set()

    def put_and_store(self, job: Job, /) -> None:
        """As `put`; but where nothing else is stored right now the caller does it. May block."""
        if self._listeners or not (self._parked and self._turn.acquire(False)):
            return self.put(job)
        self._done.append(job)
        self.ways.following.begin()
        try:
            self._flush_all()
        finally:
            self._turn.release()
            self.ways.following.end()
        # to be repeated; or its putter saw us parked no more
        return self._wakeup.set() if self._kept or self._done else None

    def join_groups(self, groups: Grouping) -> None:
        """Take part in groups from now on: tell them of members, and finish what others left."""
        self._groups = groups
        self._wakeup.set()

    def disown(self) -> None:
        """Store nothing: in a forked child all of it is the parent's."""
        self._done, self._kept, self._groups = deque(), [], None
        for name in ("put", "put_and_store"):  # methods that every run calls
            setattr(self, name, lambda item: None)

    def commit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Block until the effects are stored, in a flush shared with all other slots.

        Raises:
            LeaseLost: another worker has the message; stop.
            PublishError: the broker does not take a message.
        """
        stored = threading.Event()
        item = self.put_commit(job, effects, lambda _: stored.set())
        stored.wait()
        if item.error:
            raise item.error

    async def acommit(self, job: Job, effects: Sequence[Effect]) -> None:
        """As `commit`, for a run on a loop."""
        import asyncio

        loop, stored = asyncio.get_running_loop(), asyncio.Event()
        item = self.put_commit(job, effects, lambda _: loop.call_soon_threadsafe(stored.set))
        await stored.wait()
        if item.error:
            raise item.error

    def put_commit(
        self, job: Job, effects: Sequence[Effect], tell: Callable[[BaseException | None], object]
    ) -> Commit:
        """As `commit`, but not waiting: `tell` is called once they are stored, or with an error."""
        item = Commit(job, list(effects), tell)
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
        self._wakeup.set()
        self._thread.join()
        self._closed = True  # before looking: who commits from now on looks after putting
        for item in (left := [*self._kept, *self._done]):
            if isinstance(item, Commit):
                self._refuse(item)
        return len(left)

    def _refuse(self, item: Commit) -> None:
        self._tell(item, Unavailable("the worker stopped before these effects were stored"))

    def _loop(self) -> None:
        while self._wait():
            with self._turn:
                self._flush_all()
                if self._groups:
                    self._groups.sweep()

    def _flush_all(self) -> None:
        """Store what there is. Who does so has the turn. Blocks."""
        if not (items := self._take()):
            return
        try:
            self._flush(items)
        except Exception as error:  # a loop's edge, before anything was stored: all is repeated
            if self._failures % 30 == 0:  # not at each try
                log.warning("cannot store what runs did (%d), tries again: %r", len(items), error)
            self._kept = items
        if self._failures and not self._kept:
            log.warning("what could not be stored is stored now")
        self._failures = self._failures + 1 if self._kept else 0
        self._suspects.intersection_update(self._kept)
        self._given_up.intersection_update(self._kept)
        self.flushes += 1
        self._flushed()

    def _wait(self) -> bool:
        """Block until there is something to flush; False: we are closed."""
        if self._failures:
            pause = BACKOFF[min(self._failures, len(BACKOFF)) - 1]
            if self._deadline is not None:
                pause = min(pause, 0.05)
            self._wakeup.clear()
            self._wakeup.wait(pause)  # rung only by close: nobody sees us parked
            if self._deadline and time.monotonic() > self._deadline:
                return False
        while not self._done and not self._kept:
            if self._deadline is not None:
                with self._turn:  # of a slot
                    return bool(self._done or self._kept)
            self._parked = True
            if not self._done and self._deadline is None:
                self._wakeup.wait(self._groups.pause() if self._groups else None)
            self._parked = False
            self._wakeup.clear()
            if self._groups:
                with self._turn:
                    self._groups.sweep()
        return True

    def _take(self) -> list[Item]:
        take = self._done.popleft
        fresh = [take() for _ in range(min(len(self._done), LIMIT - min(LIMIT, len(self._kept))))]
        jobs = give_ends([i for i in fresh if type(i) is Job], time.time(), self.broker.valid_queue)
        self.ended += jobs
        if jobs != len(fresh):
            with self._counting:
                self._commits -= len(fresh) - jobs
        items, self._kept = self._kept + fresh if self._kept else fresh, []
        return items

    def _flush(self, items: list[Item]) -> None:
        """Store, then settle. Whatever does not get through is in `_kept` afterwards. Blocks."""
        self._keeper.confirm(anew=self.ways.doubtful)
        if self._keeper.lost:
            items = self._drop_lost(items)
        ready, steps = items, self.ways.of(items, self.results, repeated=bool(self._failures))
        if stored := [item for item in items if item.effects]:
            self._flushed()  # their slots are free, however long it takes to store this
            ready = [item for item in items if not item.effects]
            if picks.publishes(stored):
                stored = self._step(stored, picks.publishes, steps.publish)
                # what was published is not published again if the next step fails
                for item in stored:
                    item.effects = [e for e in item.effects if type(e) in LATER]
            stored = self._step(stored, picks.records, steps.write)
            if self._groups:
                stored = self._step(stored, picks.members, self._groups.add)
            for item in stored:
                item.effects = ()
            ready += stored
        self._settle_ready(ready, steps.settle)

    def _settle_ready(self, ready: Sequence[Item], settle: Settle) -> None:
        unsettled, acked = list[Job](), list[Job]()
        for item in ready:
            if type(item) is not Job:
                self._tell(item)
            else:
                (acked if item.acked else unsettled).append(item)
        self._lost.clear()
        self._keeper.settling = unsettled
        done = self._step(unsettled, picks.settlements, lambda batch: self._settle(settle, batch))
        self._keeper.settled(done)
        if acked:
            if self.results:
                acked = self._step(acked, picks.sent_anew, self.results.marks().put)
            done = done + (ended := self._bury(acked))
            self._keeper.acked.difference_update(ended)
        self.settled += len(done)
        tell_ends(done, self.report, self._listeners, self._lost)

    def _bury(self, acked: list[Job]) -> list[Job]:
        """Keep what of them is dead: nobody leases it."""
        dead = {job for job in acked if type(job.verdict) is DeadLetter}
        if not dead:
            return acked
        others = [job for job in acked if job not in dead]
        return others + self._step([*dead], picks.letters, self.broker.bury)

    def _step(self, items: list[Any], pick: Pick, write: Write) -> list[Any]:
        """Write what `pick` finds in the items; return what got through, the rest is kept."""
        stored = self._store(items, pick, write)
        if len(stored) == len(items):
            self._silent.pop(pick, None)
        return stored

    def _store(self, items: list[Any], pick: Pick, write: Write) -> list[Any]:
        if self._suspects and len(items) > 1 and not self._suspects.isdisjoint(items):
            alone = [[item] for item in items if item in self._suspects]
            rest = [item for item in items if item not in self._suspects]
            return [item for part in (rest, *alone) for item in self._store(part, pick, write)]
        try:
            if effects := pick(items):
                write(effects)
            return items
        except Unavailable as error:
            if isinstance(error, Unanswered) and self._answers_else(items, pick):
                return self._narrow(items, pick, write, error)
            if not self._failures:  # once per outage
                log.warning("cannot store what runs did (%d), tries again: %s", len(items), error)
            self._kept += items
            return []
        except Exception as error:
            if isinstance(error, PublishError) and names_all(items, error):
                return self._sort(items, pick, write, error)
            return self._narrow(items, pick, write, error)

    def _narrow(self, items: list[Any], pick: Pick, write: Write, error: Exception) -> list[Any]:
        """Store the halves apart: what fails alone is at fault."""
        if half := len(items) // 2:
            first = self._store(items[:half], pick, write)
            return first + self._store(items[half:], pick, write)
        if isinstance(error, (Unanswered, PublishError)) and items[0] not in self._suspects:
            self._suspects.add(items[0])
            self._failures = 0  # the server is there: no reason for long pauses
        self._blame(items[0], error)
        return []

    def _answers_else(self, items: Sequence[Item], pick: Pick) -> bool:
        """Say whether a server that does not answer to these, again and again, is there."""
        self._silent[pick] = self._silent.get(pick, 0) + 1
        if self._silent[pick] < SILENT and self._suspects.isdisjoint(items):
            return False
        try:
            ours = self.results if pick in picks.STORED else None
            ours.read(("",)) if ours else self.broker.check()
        except Exception:  # whatever it is, nothing is known of the items
            return False
        return True

    def _sort(self, items: list[Any], pick: Pick, write: Write, error: PublishError) -> list[Any]:
        """Return the items of which everything is stored; what is stored is not sent again."""
        rejected, unknown = set(map(id, error.rejected)), set(map(id, error.unknown))
        stored: list[Any] = []
        unclear: list[Any] = []
        for item in items:
            left = [e for e in item.effects if type(e) in LATER or id(e) in rejected | unknown]
            no = [e for e in left if id(e) in rejected]
            perhaps = [e for e in left if id(e) in unknown]
            if not no and not perhaps:
                stored.append(item)
                continue
            if type(item) is Job:
                item.effects = left
            if no or type(item) is Commit:
                self._blame(item, error.part(no, perhaps))
            else:
                unclear.append(item)
        if unclear and self._answers_else(unclear, pick):
            return stored + self._narrow(unclear, pick, write, error)
        self._kept += unclear
        return stored

    def _blame(self, item: Item, error: Exception) -> None:
        item.tries += 1
        ambiguous = isinstance(error, PublishError) and not error.rejected
        if item.tries < TRIES and not (type(item) is Commit and ambiguous):
            return self._kept.append(item)
        log.error("an effect failed %d times: %r", item.tries, error)
        if type(item) is not Job:
            item.effects = ()
            return self._tell(item, error)
        if not item.effects and type(item.verdict) is DeadLetter:  # its lease ends it, if any
            self._keeper.drop([item])
            self._keeper.tell_lost([item])
            self.settled += 1
            return None
        if item.effects and item not in self._given_up:
            self._given_up.add(item)
            item.tries = TRIES - 1  # that small a record fails at once or never
            give_up(item, f"an effect failed {TRIES} times", error)
        else:
            item.effects = ()
            if type(item.verdict) is not DeadLetter:
                item.verdict = DeadLetter(f"an effect failed {TRIES} times: {text_of(error, repr)}")
        self._kept.append(item)
        return None

    def _settle(self, settle: Settle, batch: Sequence[Settlement]) -> None:
        if lost := settle(batch):
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
                item.tell(error)
