"""Any broker under gevent or eventlet: what blocks natively runs in native threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from ..contracts import (
    Again,
    Broker,
    Capability,
    DeadMessage,
    Delivery,
    LeaseId,
    Letter,
    Outgoing,
    Part,
    QueueSize,
    Settlement,
    Subscription,
    Transactions,
    unchanged,
)
from ..offload import Offload

__all__ = ["GreenBroker"]

T = TypeVar("T")


class GreenBroker(Broker):
    """Makes a broker that is not GREEN_SAFE so: only the calling greenlet waits for its calls.

    A call from a native thread is made there and then. A greenlet that is killed during a call
    leaves it running; leases that such a `fetch` brings end by time.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.url)
        self.broker = broker
        self._call = Offload()

    @property
    def capabilities(self) -> Capability:  # type: ignore[override]
        """Those of the broker within, and one more."""
        return self.broker.capabilities | Capability.GREEN_SAFE

    def capabilities_of(self, queue: str) -> Capability:
        return self._call(self.broker.capabilities_of, queue) | Capability.GREEN_SAFE

    @property
    def address(self) -> str:
        return self.broker.address

    @property
    def hints(self) -> Mapping[Capability, str]:  # type: ignore[override]
        """Those of the broker within."""
        return self.broker.hints

    @property
    def transactions(self) -> Transactions | None:  # type: ignore[override]
        """Those of the broker within: a transaction waits as its owner's client does."""
        return self.broker.transactions

    def publish(self, batch: Sequence[Outgoing]) -> None:
        self._call(self.broker.publish, batch)

    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        return _GreenSubscription(self.broker.subscribe(queue, lease=lease), self._call)

    def size(self, queue: str) -> QueueSize:
        return self._call(self.broker.size, queue)

    def queues(self) -> Sequence[str]:
        return self._call(self.broker.queues)

    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        return self._call(self.broker.purge, queue, parts)

    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        return self._call(self.broker.dead_letters, queue, limit, offset)

    def delayed(self, queue: str, limit: int = 100) -> Sequence[Outgoing]:
        return self._call(self.broker.delayed, queue, limit)

    def bury(self, batch: Sequence[Letter]) -> None:
        self._call(self.broker.bury, batch)

    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        return self._call(self.broker.replay, queue, ids, again)

    def check(self) -> None:
        self._call(self.broker.check)

    def close(self) -> None:
        self._call(self.broker.close)
        self._call.close()


class _GreenSubscription(Subscription):
    def __init__(self, subscription: Subscription, call: Any) -> None:
        self._subscription = subscription
        self._call: Callable[..., Any] = call

    def wait(self, timeout: float) -> None:
        self._call(self._subscription.wait, timeout)

    @property
    def emptied(self) -> bool:  # type: ignore[override]
        return self._subscription.emptied

    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        return self._call(self._subscription.fetch, limit, max_bytes)  # type: ignore[no-any-return]

    def fetch_next(self, limit: int, max_bytes: int, timeout: float) -> Sequence[Delivery] | None:
        told = (limit, max_bytes, timeout)
        return self._call(self._subscription.fetch_next, *told)  # type: ignore[no-any-return]

    def rest(self) -> None:
        self._call(self._subscription.rest)

    def wake(self) -> None:
        self._call(self._subscription.wake)

    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        return self._call(self._subscription.settle, batch)  # type: ignore[no-any-return]

    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        return self._call(self._subscription.extend, leases)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._call(self._subscription.close)
