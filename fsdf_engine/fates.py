"""What becomes of a message that a worker which is gone had acknowledged, or perhaps had.

The mark of its group tells who it was. Whoever adopts the mark has it end as lost; but it may have
gone on: if it was not acknowledged it is delivered again, and its run may have sent it anew. The
first to put the mark of its fate decides, and the others do as that says. So nobody is told that a
message was lost which runs afterwards, and whoever asks again decides the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from . import codec
from .contracts import Delivery, Effect, Job, Mark, Member, Owner, Plan, Record, ResultStore, Sink
from .message import FLAT, sends_of
from .outcomes import Outcome, text_of

__all__ = ["LIVES", "LOST", "after", "before", "decide", "ends_of", "fate", "members_of", "read",
           "write"]  # fmt: skip
log = logging.getLogger("fsdf.consumer")
_T = TypeVar("_T")
LIVES, LOST = b"", b"lost"
# A mark is adopted within a lease or two, where there are consumers; what is told to be lost may
# wait in its queue for long.
LIFE = {LIVES: 3600.0, LOST: 86400.0}
ANEW = -1  # in place of the number of a delivery
# Which attempt it was: a record of it gives way to one of a worker that lives after all.
UNKNOWN = -1


# ------------------------------------------------------------------ fates


def before(job: Job) -> list[str]:
    """Return the names of the fates that others may have decided of what this message was."""
    sends, lost = sends_of(job.extra), job.delivery.deliveries
    names = [_name(job, sends, n) for n in range(lost)]
    return [*names, _name(job, sends - 1, ANEW)] if sends else names


def after(job: Job) -> list[str]:
    """Return the names of those that stand for its ways to go on: redelivered, and sent anew."""
    sends = sends_of(job.extra)
    return [_name(job, sends, n) for n in (job.delivery.deliveries, ANEW)]


def _name(job: Job, sends: int, n: int) -> str:
    return f"fate:{sends}:{n}:{text_of(job.id)}"


def fate(name: str, what: bytes) -> Mark:
    """Return what is put to decide."""
    return Mark(name, what, LIFE[what])


def decide(store: ResultStore, names: Collection[str], what: bytes, *also: Mark) -> set[str]:
    """Decide what is not decided yet, and put other marks; return what was decided otherwise.

    Blocks for a round trip, for another one if something was decided.

    Raises:
        Unavailable: to be repeated.
    """
    put = store.marks().put([*also, *(fate(name, what) for name in names)])
    left = set(names).difference(put)
    return (
        {name for name, kept in store.marks().read([*left]).items() if kept != what}
        if left
        else left
    )


# ------------------------------------------------------------------ what is told of a group


def write(jobs: Sequence[Job]) -> bytes:
    """Return what it takes to tell how these ended, to whoever adopts them."""
    try:
        return codec.dumps([_row(job) for job in jobs])
    except TypeError:  # a wire form that is no JSON
        return b"[%b]" % b",".join(map(_plain_row, jobs))


def _row(job: Job) -> tuple[Any, ...]:
    extra: Mapping[str, Any] = job.extra
    if "args" in extra:  # they may be large, and tell nothing
        extra = {key: value for key, value in extra.items() if key != "args"}
    return job.id, job.plan.name, job.delivery.deliveries, job.published_at, extra


def _plain_row(job: Job) -> bytes:
    try:
        return codec.dumps(codec.plain(_row(job)))
    except Exception:  # a codec's own values: by its id it can be answered for all the same
        return codec.dumps((text_of(job.id), *_row(job)[1:4], {"sends": sends_of(job.extra)}))


def read(mark: Mark, plan_of: Callable[[str], Plan], owner: Owner) -> list[Job]:
    """Return the messages that a mark tells of, as our own jobs without a body."""
    try:
        return [_job(*row, plan_of=plan_of, owner=owner) for row in codec.loads(mark.value)]
    except Exception:  # of another program: it keeps no queue waiting
        log.exception("the mark %r tells of no messages", mark.name)
        return []


def _job(
    id: str, name: str, deliveries: int, at: float, extra: dict[str, Any], *,
    plan_of: Callable[[str], Plan], owner: Owner,
) -> Job:  # fmt: skip
    job = Job()
    job.id, job.published_at, job.extra = id, at, extra
    job.delivery = Delivery(None, b"", deliveries=deliveries)  # type: ignore[arg-type]
    job.plan, job.owner, job.attempt = plan_of(name), owner, UNKNOWN
    job.codec, job.kept, job.args, job.kwargs = FLAT, None, (), {}
    job.claims, job.pushes, job.acked = None, None, True
    return job


# ------------------------------------------------------------------ what is stored of them


def ends_of(
    store: ResultStore, jobs: Sequence[Job], outcome: Outcome
) -> Mapping[str, bytes | None]:
    """Return the stored ends by id, None where there is none yet; others store no records.

    `outcome` is what a sink is asked with to learn in which layout it stores, if it does not say
    that. Blocks.
    """
    ids: dict[str, list[str]] = {}  # by layout
    for job in jobs:
        for layout in _each(job, partial(_layouts, job, outcome)):
            ids.setdefault(layout, []).append(job.id)
    ends: dict[str, bytes | None] = {id: None for some in ids.values() for id in some}
    for layout, some in ids.items():
        if not layout or layout in store.layouts:  # in another one nothing can be stored
            ends |= store.read(some, final=True, layout=layout)
    return ends


def _layouts(job: Job, outcome: Outcome, sink: Sink) -> Sequence[str]:
    if layout_of := getattr(sink, "layout_of", None):
        return () if (layout := layout_of(job)) is None else (layout,)
    return [effect.layout for effect in sink(job, outcome) if type(effect) is Record]


def members_of(job: Job, end: bytes | None) -> list[Effect]:
    """Return what its groups are told by the end that is stored, if there is one."""

    def told(sink: Sink) -> Iterable[Effect]:
        of_end = getattr(sink, "of_end", None)
        return of_end(job, end) if of_end and end else ()

    return [effect for effect in _each(job, told) if type(effect) is Member]


def _each(job: Job, ask: Callable[[Sink], Iterable[_T]]) -> Iterator[_T]:
    for sink in job.plan.sinks:
        try:
            yield from ask(sink)
        except Exception:
            log.exception("a sink failed", extra={"task_id": job.id})
