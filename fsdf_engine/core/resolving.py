"""Names that no plan has: what a consumer does with their messages, and how children find plans."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any

from ..contracts import Job, Plan
from ..errors import ArgumentError, UnknownTask
from ..outcomes import Outcome, text_of

__all__ = ["LIMIT", "Resolving", "function_at", "plan_by"]
LIMIT = 60.0  # seconds that an answer may take


class Resolving:
    """Lets unknown names be unknown; a subclass asks about them. Called in the consumer's thread.

    `answered` is true when there is something to `release`.
    """

    answered: Collection[Job] = ()

    def sift(self, answers: list[tuple[Job, Outcome]]) -> list[Job]:
        """Take those messages out that can wait; of the others it is said why they are unknown."""
        return []

    def hold(self, jobs: Sequence[Job]) -> None:
        """Keep messages, still leased, until their names are known."""

    def aside(self) -> int:
        """Count the messages that are kept, less what is in the pool for them."""
        return 0

    def release(self) -> list[Job]:
        """Take in the answers; return the messages that have waited for them, to be read again."""
        return []

    def withdraw(self) -> list[Job]:
        """Take back the messages, and the question if it has not started."""
        return []

    def close(self) -> None:
        """End the question: nobody waits for its answer any more."""


def function_at(place: str) -> Callable[..., Any]:
    """Return what lies at "module:function". Imports the module."""
    module, _, function = place.partition(":")
    return attrgetter(function)(import_module(module))  # type: ignore[no-any-return]


def plan_by(place: str, queue: str, name: str) -> Plan:
    """Ask the resolver at "module:function" for a task, and return its plan. Runs user code.

    Raises:
        UnknownTask: it knows none.
    """
    if (found := function_at(place)(queue, name)) is None:
        raise UnknownTask(f"the resolver {place} knows no task {name!r}")
    if type(found) is Plan:
        return found
    if not callable(plan := getattr(found, "plan", None)):
        raise ArgumentError(f"the resolver {place} gave {text_of(found, repr)}, which is no task")
    return plan()  # type: ignore[no-any-return]
