"""What an outbox stores: finished jobs, commits in the middle of runs, and what each step picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..contracts import Effect, Job, Outgoing, Record, Settlement
from ..errors import PublishError
from ..outcomes import ACK

__all__ = ["Commit", "Item", "names_all", "nowhere", "publishes", "records", "settlements"]


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


def settlements(items: Sequence[Item]) -> list[Settlement]:
    """Return what their broker is told of them."""
    return [(item.delivery.lease, item.verdict if type(item) is Job else ACK) for item in items]


def nowhere(_: object) -> None:
    """No result store is configured."""
