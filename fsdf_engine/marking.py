"""Marks of what is acknowledged and has no end yet, so that waiters learn of a killed worker, too.

Each acknowledged group whose results are stored has one beside them, renewed with the leases. When
it lapses its worker is gone: another consumer of the queue ends what of it has no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

from . import fates
from .contracts import Job, LeaseId, Mark, Plan, ResultStore, Subscription, Together
from .core.outbox import Outbox
from .errors import Unavailable
from .fates import LIVES, LOST, after, before
from .message import new_id
from .outcomes import Outcome

__all__ = ["Marking"]
ENDED, SOON = 32, 8  # marks that are deleted together: in a round trip of their own, or in another


class Marking:
    """`put...`, `told` and `adopt` are the consumer's thread's, `tend` the keeper's.

    What they share changes by single operations. Where results are off nothing is done.
    """

    def __init__(self, queue: str, lease: float, outbox: Outbox, acked: set[Job]) -> None:
        self.lapsed: deque[Mark] = deque()  # to be adopted
        self._prefix = f"early:{len(queue)}:{queue}:"  # of no other queue's
        self._lease, self._outbox, self._acked = lease, outbox, acked
        self._open: dict[str, Sequence[Job]] = {}
        self._next = ""  # of the group that is not known to be acknowledged
        self._store: ResultStore | None = None  # that `_together` is of
        self._together: Together | None = None

    def put(self, group: Sequence[Job]) -> Collection[Job]:
        """Mark what is acknowledged next; a repeat changes nothing. Blocks for a round trip.

        Return what of it must not run: its waiters were told that it was lost.

        Raises:
            Unavailable: to be repeated before anything is acknowledged.
        """
        store, jobs = self._outbox.results, self._unmarked(group)
        if store is None or not jobs:
            return ()
        names = _before(jobs)
        mark = self._mark(store, jobs)
        lost = fates.decide(store, [n for each in names.values() for n in each], LIVES, mark)
        gone = [job for job, each in names.items() if not lost.isdisjoint(each)]
        if gone:  # one that is delivered again was never sent anew, but its letter may be
            store.marks().delete([after(job)[1] for job in gone])
        self._open[self._next] = jobs
        return gone

    def put_and_acknowledge(
        self, group: Sequence[Job], subscription: Subscription, leases: Sequence[LeaseId]
    ) -> tuple[int, Collection[LeaseId]]:
        """Do both in one round trip; return how far that came, and what was lost: see `Together`.

        0 where that cannot be, or somebody else may have decided the fate of one of them.
        """
        store, jobs = self._outbox.results, self._unmarked(group)
        if self._store is not store:
            self._store = store
            self._together = store.together(subscription) if store else None
        if store is None or not self._together or not jobs or _before(jobs):
            return 0, ()
        done, lost = self._together((), (), leases, [self._mark(store, jobs)])
        if done > 1:
            self._open[self._next] = jobs
        return done, lost

    def foresee(self, jobs: Sequence[Job]) -> Mark | None:
        """Return the mark of what is to be acknowledged by who leases it, if that can be.

        Then `foreseen` says that it was put, and `told` that this is not known. Called by who has
        taken the consumer's thread's place.
        """
        store, jobs = self._outbox.results, self._unmarked(jobs)
        return self._mark(store, jobs) if store and jobs and not _before(jobs) else None

    def foreseen(self, jobs: Sequence[Job]) -> None:
        """Know that these are acknowledged."""
        for job in jobs:
            job.acked = True
        self._acked.update(jobs)
        self._open[self._next] = jobs
        self._next = ""

    def _unmarked(self, group: Sequence[Job]) -> Sequence[Job]:
        if self._next in self._open:
            return ()
        return [job for job in group if job.plan.early and job.plan.sinks and not job.acked]

    def _mark(self, store: ResultStore, jobs: Sequence[Job]) -> Mark:
        many = SOON if self._together else ENDED
        if len(self._open) >= many and len(ended := self._ended()) >= many:
            marks = store.marks()
            with suppress(Unavailable):  # then with the next ones
                self._delete(marks.delete_soon if self._together else marks.delete, ended)
        self._next = self._next or self._prefix + new_id()
        return Mark(self._next, fates.write(jobs), self._lease, watched=True)

    def told(self) -> None:
        """The group is acknowledged, or has been given back."""
        if self._next:
            self._open.setdefault(self._next, ())  # perhaps it is there though nobody said so
        self._next = ""

    def tend(self) -> None:
        """Renew ours, delete those of what has ended, take charge of others'. Blocks."""
        if (store := self._outbox.results) is None:
            return
        self._delete(store.marks().delete, [*self._ended(), *self._shorten(store)])
        if names := list(self._open):
            store.marks().renew(names, self._lease)
        lapsed = store.marks().lapsed(self._lease, self._prefix)
        others = [mark for mark in lapsed if mark.name != self._next]  # first: it is open next
        self.lapsed += [mark for mark in others if mark.name not in self._open]

    def adopt(self, plans: Mapping[str, Plan], other: Plan, outcome: Outcome) -> Sequence[Job]:
        """Return what a lost worker has left without an end, as our own jobs without a body.

        Groups learn of those that have one. `outcome` is how the others end. Blocks.

        Raises:
            Unavailable: to be repeated.
        """
        mark, store = self.lapsed[0], self._outbox.results
        assert store
        jobs = fates.read(mark, lambda name: plans.get(name, other), self._outbox)
        ends = fates.ends_of(store, jobs, outcome)
        open = [job for job in jobs if not ends.get(job.id)]
        names = [name for job in open if job.id in ends for name in after(job)]
        live = fates.decide(store, names, LOST) if names else set()
        lost = [job for job in open if live.isdisjoint(after(job))]
        self.lapsed.popleft()
        told = [(job, some) for job in jobs if (some := fates.members_of(job, ends.get(job.id)))]
        ours = [*lost, *(job for job, _ in told)]
        self._acked.update(ours)
        self._open[mark.name] = ours
        for job, members in told:
            self._outbox.put_commit(job, members, partial(self._retold, job))
        return lost

    def _retold(self, job: Job, error: BaseException | None) -> None:
        if type(error) is not Unavailable:  # upon which another one tells it again
            self._acked.discard(job)

    def _shorten(self, store: ResultStore) -> list[str]:
        """Mark what has no end yet without the rest of its group, whose ends may be forgotten.

        Return the marks in whose place those are. Blocks.
        """
        marks, old = list[Mark](), list[str]()
        for name, jobs in list(self._open.items()):
            left = [job for job in jobs if job in self._acked]
            if name != self._next and 0 < len(left) < len(jobs):
                marks.append(Mark(self._prefix + new_id(), fates.write(left), self._lease, True))
                self._open[marks[-1].name] = left
                old.append(name)
        if marks:
            store.marks().put(marks)
        return old

    def close(self) -> None:
        """Delete those of what has ended; the others lapse, and so do all if that fails."""
        if store := self._outbox.results:
            with suppress(Unavailable):
                self._delete(store.marks().delete, self._ended())

    def _ended(self) -> list[str]:
        acked = self._acked
        return [
            name
            for name, jobs in list(self._open.items())
            if name != self._next and acked.isdisjoint(jobs)
        ]

    def _delete(self, delete: Callable[[Sequence[str]], object], names: Sequence[str]) -> None:
        if names or self._together:
            delete(names)
        for name in names:
            self._open.pop(name, None)


def _before(jobs: Sequence[Job]) -> dict[Job, list[str]]:
    """Return the fates that others may have decided, of those that were there before."""
    return {j: before(j) for j in jobs if j.delivery.deliveries or "sends" in j.extra}
