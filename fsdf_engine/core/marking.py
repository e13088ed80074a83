"""Marks of what is acknowledged and has no end yet, so that waiters learn of a killed worker, too.

Each acknowledged group whose results are stored has one beside them, renewed with the leases. When
it lapses its worker is gone: another consumer of the queue ends what of it has no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .. import codec
from ..contracts import Delivery, Job, Mark, Owner, Plan, Record, ResultStore
from ..errors import Unavailable
from ..message import FLAT, new_id
from ..outcomes import Outcome
from .outbox import Outbox

__all__ = ["Marking"]
ENDED = 8  # marks that are deleted together
# Which attempt it was: a record of it gives way to one of a worker that lives after all.
UNKNOWN = -1


class Marking:
    """`put`, `told` and `adopt` are the consumer's thread's, `tend` the keeper's.

    What they share changes by single operations. Where results are off nothing is done.
    """

    def __init__(self, queue: str, lease: float, outbox: Outbox, acked: set[Job]) -> None:
        self.lapsed: deque[Mark] = deque()  # to be adopted
        self._prefix = f"early:{len(queue)}:{queue}:"  # of no other queue's
        self._lease, self._outbox, self._acked = lease, outbox, acked
        self._open: dict[str, Sequence[Job]] = {}
        self._next = ""  # of the group that is not known to be acknowledged

    def put(self, group: Sequence[Job]) -> None:
        """Mark what is acknowledged next. Blocks for a round trip; a repeat changes nothing.

        Raises:
            Unavailable: to be repeated before anything is acknowledged.
        """
        store = self._outbox.results
        if store is None or self._next in self._open:
            return
        if len(ended := self._ended()) >= ENDED:
            self._delete(store, ended)
        if jobs := [job for job in group if job.plan.early and job.plan.sinks]:
            self._next = self._next or self._prefix + new_id()
            store.put_marks([Mark(self._next, _told(jobs), self._lease, watched=True)])
            self._open[self._next] = jobs

    def told(self) -> None:
        """The group is acknowledged, or has been given back."""
        if self._next:
            self._open.setdefault(self._next, ())  # perhaps it is there though nobody said so
        self._next = ""

    def tend(self) -> None:
        """Renew ours, delete those of what has ended, take charge of others'. Blocks."""
        if (store := self._outbox.results) is None:
            return
        self._delete(store, self._ended())
        if names := list(self._open):
            store.renew_marks(names, self._lease)
        lapsed = store.lapsed(self._lease, self._prefix)
        self.lapsed += [mark for mark in lapsed if mark.name not in self._open]

    def adopt(self, plans: Mapping[str, Plan], other: Plan, outcome: Outcome) -> Sequence[Job]:
        """Return what a lost worker has left without an end, as our own jobs without a body.

        Blocks for a round trip. `outcome` is how they will end.

        Raises:
            Unavailable: to be repeated.
        """
        mark, store = self.lapsed[0], self._outbox.results
        rows = codec.loads(mark.value)
        jobs = [_job(row, plans.get(row[1], other), self._outbox) for row in rows]
        done = _with_end(store, jobs, outcome) if store else ()
        jobs = [job for job in jobs if job.id not in done]
        self.lapsed.popleft()
        self._acked.update(jobs)
        self._open[mark.name] = jobs
        return jobs

    def close(self) -> None:
        """Delete those of what has ended; the others lapse, and so do all if that fails."""
        if store := self._outbox.results:
            with suppress(Unavailable):
                self._delete(store, self._ended())

    def _ended(self) -> list[str]:
        acked = self._acked
        return [
            name
            for name, jobs in list(self._open.items())
            if name != self._next and acked.isdisjoint(jobs)
        ]

    def _delete(self, store: ResultStore, names: Sequence[str]) -> None:
        if names:
            store.delete_marks(names)
        for name in names:
            self._open.pop(name, None)


def _told(jobs: Sequence[Job]) -> bytes:
    """Return what it takes to tell how these ended, to whoever adopts them."""
    rows = [
        (job.id, job.plan.name, job.delivery.deliveries, job.published_at, _control(job.extra))
        for job in jobs
    ]
    try:
        return codec.dumps(rows)
    except TypeError:  # a wire form that is no JSON
        return codec.dumps(codec.plain(rows))


def _control(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out the arguments that are there: they may be large, and tell nothing."""
    return {k: v for k, v in extra.items() if k != "args"} if "args" in extra else extra


def _with_end(store: ResultStore, jobs: Sequence[Job], outcome: Outcome) -> set[str]:
    """Return the ids of those whose end is stored, in whatever layout their sinks use."""
    places: dict[str, list[str]] = {}
    for job in jobs:
        for sink in job.plan.sinks:
            with suppress(Exception):  # what a sink raises is told when the job ends
                for effect in sink(job, outcome):
                    if type(effect) is Record:
                        places.setdefault(effect.layout, []).append(job.id)
    found = (store.read(ids, final=True, layout=layout) for layout, ids in places.items())
    return {id for ended in found for id in ended}


def _job(row: Sequence[Any], plan: Plan, owner: Owner) -> Job:
    job = Job()
    job.id, _, deliveries, job.published_at, job.extra = row
    job.delivery = Delivery(None, b"", deliveries=deliveries)  # type: ignore[arg-type]
    job.plan, job.owner, job.attempt = plan, owner, UNKNOWN
    job.codec, job.kept, job.args, job.kwargs = FLAT, None, (), {}
    job.claims, job.pushes, job.acked, job.started_at = None, None, True, 0.0
    return job
