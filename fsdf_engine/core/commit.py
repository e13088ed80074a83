"""What an outbox stores: finished jobs, commits in the middle of runs, and what each step picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..contracts import Effect, Job, Letter, Mark, Member, Outgoing, Record, Settlement
from ..errors import PublishError
from ..fates import LIVES, after, fate
from ..outcomes import DeadLetter, Succeeded, ended

__all__ = [
    "LATER", "STORED", "Commit", "Item", "letters", "members", "names_all", "publishes",
    "records", "sent_anew", "settlements",
]  # fmt: skip


@dataclass(slots=True, eq=False, repr=False)
class Commit:
    """Effects that somebody waits for in the middle of a run."""

    job: Job
    effects: Sequence[Effect]
    tell: Callable[[BaseException | None], object]
    error: BaseException | None = None
    tries: int = 0


Item: TypeAlias = Job | Commit
LATER = (Record, Member)  # effects that are stored when the others have been published


def names_all(items: Sequence[Item], error: PublishError) -> bool:
    """Say whether the error tells of these items' own messages what became of them."""
    ours = {id(e) for item in items for e in item.effects}
    named = {id(e) for group in (error.rejected, error.unknown) for e in group}
    return bool(named) and named <= ours


def publishes(items: Sequence[Item]) -> list[Outgoing]:
    """Return the messages to publish for them."""
    return [e for item in items for e in item.effects if type(e) is Outgoing]


def records(items: Sequence[Item]) -> list[Record]:
    """Return the results to store of them."""
    return [e for item in items for e in item.effects if type(e) is Record]


def members(items: Sequence[Item]) -> list[Member]:
    """Return what to tell groups of them."""
    return [e for item in items for e in item.effects if type(e) is Member]


def sent_anew(jobs: Sequence[Job]) -> list[Mark]:
    """Return what says of acknowledged ones that they go on: nobody tells that they are lost."""
    return [
        fate(after(job)[1], LIVES)
        for job in jobs
        if type(job.outcome) is not Succeeded and job.plan.sinks and not ended(job.outcome)
    ]


def settlements(jobs: Sequence[Job]) -> list[Settlement]:
    """Return what their broker is told of them."""
    return [(job.delivery.lease, job.verdict) for job in jobs]


def letters(jobs: Sequence[Job]) -> list[Letter]:
    """Return what is kept of jobs that nobody leases."""
    return [
        Letter(
            job.plan.queue, job.delivery.id or job.id, job.delivery.body, verdict.reason,
            verdict.trace, job.delivery.headers, job.delivery.priority,
        )
        for job in jobs
        if type(verdict := job.verdict) is DeadLetter
    ]  # fmt: skip


STORED = records, members, sent_anew  # what the result store has to do with
