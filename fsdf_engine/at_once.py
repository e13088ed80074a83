"""A small flush whose steps are taken in one round trip, where the store can do that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .contracts import (
    Broker,
    Effect,
    Job,
    LeaseId,
    Outgoing,
    Record,
    ResultStore,
    Settlement,
    Subscription,
    Together,
)
from .following import Following
from .outcomes import ACK

if TYPE_CHECKING:
    from .core.lease import Keeper

__all__ = ["Settle", "Steps", "Ways", "at_once"]
FEW = 8  # items; of more each step is worth a round trip of its own
Settle: TypeAlias = Callable[[Sequence[Settlement]], Collection[LeaseId]]
Once: TypeAlias = Callable[..., tuple[int, Collection[LeaseId]]]


class Steps(NamedTuple):
    """What an outbox does with what it finds in its items: one after the other."""

    publish: Callable[[Sequence[Any]], object]
    write: Callable[[Sequence[Any]], object]
    settle: Settle


class Ways:
    """Chooses how a consumer's outbox stores what it has: each step by itself, or all at once."""

    doubtful = False  # whether what was to be taken at once was taken is not known

    def __init__(self, broker: Broker, subscription: Subscription, keeper: Keeper) -> None:
        self._broker, self._subscription, self._keeper = broker, subscription, keeper
        self._results: ResultStore | None = None  # the store that `_together` is of
        self._together: Together | None = None
        self.following = Following(subscription)

    def of(self, items: Sequence[Any], results: ResultStore | None, *, repeated: bool) -> Steps:
        """Return the steps for these items. What is `repeated` is looked at step by step."""
        write = results.write if results else nowhere
        steps = Steps(self._broker.publish, write, self._subscription.settle)
        if self._results is not results:
            self._results = results
            self._together = results.together(self._subscription) if results else None
        if not self._together or repeated or len(items) > FEW:
            return steps
        self.doubtful = False
        taken = at_once(self._take, items, steps)
        if taken is not steps:  # a step before that of settling acknowledges
            self._keeper.settling = [item for item in items if not item.acked]
        return taken

    def _take(self, *given: Any) -> tuple[int, Collection[LeaseId]]:
        assert self._together
        try:
            return self._together(*given, follow=self.following.place())
        except Exception:
            self.doubtful = True
            self.following.doubt()
            raise


def at_once(together: Once, items: Sequence[Any], steps: Steps) -> Steps:
    """Return steps of which the first that is taken takes all, if nothing speaks against it.

    What is not done then each of them does in its own way: so whatever goes wrong is found out,
    and blamed on whom it concerns, as ever. Every item must end by being acknowledged.
    """
    if not all(type(item) is Job and item.verdict is ACK for item in items):
        return steps
    effects = [effect for item in items for effect in item.effects]
    if not effects or not all(type(effect) in (Outgoing, Record) for effect in effects):
        return steps
    leases = [item.delivery.lease for item in items if not item.acked]
    if not (leases or any(type(effect) is Outgoing for effect in effects)):
        return steps  # it is one
    taken = _Taken(together, effects, leases, steps)
    return Steps(taken.publish, taken.write, taken.settle)


def nowhere(_: object) -> None:
    """No result store is configured."""


class _Taken:
    """The steps of one flush."""

    def __init__(
        self, together: Once, effects: Sequence[Effect], leases: Sequence[LeaseId], steps: Steps
    ) -> None:
        self._together: Once | None = together
        self._effects, self._leases, self._steps = effects, leases, steps
        self._done, self._lost = 0, tuple[LeaseId, ...]()

    def _is_done(self, step: int) -> bool:
        if together := self._together:
            self._together = None
            publishes = [e for e in self._effects if type(e) is Outgoing]
            records = [e for e in self._effects if type(e) is Record]
            self._done, lost = together(publishes, records, self._leases)
            self._lost = tuple(lost)
        return self._done >= step

    def publish(self, batch: Sequence[Outgoing]) -> None:
        if not self._is_done(1):
            self._steps.publish(batch)

    def write(self, records: Sequence[Record]) -> None:
        if not self._is_done(2):
            self._steps.write(records)

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        return self._lost if self._is_done(3) else self._steps.settle(batch)
