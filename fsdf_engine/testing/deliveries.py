"""What the suites of brokers send, and how they receive it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import pytest

from ..contracts import Broker, Capability, Delivery, Outgoing, QueueSize, Subscription

__all__ = [
    "BOUND", "MB", "QUEUE", "Open", "bodies", "collect", "counts", "drain", "fetch_some", "has",
    "held", "needs", "next_some", "outgoing", "sized", "take",
]  # fmt: skip

MB = 1 << 20
BOUND = 20.0  # seconds; only a failing test reaches it
QUEUE = "conformance"
Open = Callable[..., Subscription]  # subscribe(lease=30.0) to the suite's queue


def outgoing(n: int, queue: str = QUEUE, **options: float) -> Outgoing:
    """Return a message whose body is `{"n": n}`."""
    return Outgoing(queue, f"id{n}", b'{"n":%d}' % n, **options)  # type: ignore[arg-type]


def has(broker: Broker, capability: Capability) -> bool:
    """Say whether the suite's queue has a capability."""
    return capability in broker.capabilities_of(QUEUE)


def needs(broker: Broker, capability: Capability) -> None:
    """Skip where the broker does not claim the capability for the suite's queue."""
    if not has(broker, capability):
        pytest.skip(f"{type(broker).__name__} has no {capability.name}")


def fetch_some(sub: Subscription, limit: int = 10) -> Sequence[Delivery]:
    """Fetch, waiting for a deadline to pass or a message to come."""
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        if found := sub.fetch(limit, MB):
            return found
        sub.wait(5.0)
    raise AssertionError("nothing came")


def next_some(sub: Subscription, limit: int = 10) -> Sequence[Delivery]:
    """Receive as a consumer does: by `fetch_next` where a fetch would find nothing."""
    end = time.monotonic() + BOUND
    found: Sequence[Delivery] | None = sub.fetch(limit, MB)
    while not found and time.monotonic() < end:
        found = sub.fetch(limit, MB) if found is None else sub.fetch_next(limit, MB, 5.0)
    if found:
        return found
    raise AssertionError("nothing came")


def take(broker: Broker, sub: Subscription, count: int) -> list[Delivery]:
    """Fetch so many, which are there: without a wait, where PULL; never blocks for long."""
    found, end = list[Delivery](), time.monotonic() + BOUND
    while len(found) < count and (batch := sub.fetch(count - len(found), MB)):
        found += batch
    while len(found) < count and not has(broker, Capability.PULL) and time.monotonic() < end:
        found += sub.fetch(count - len(found), MB)
        if len(found) < count:
            sub.wait(1.0)
    assert len(found) == count
    return found


def collect(broker: Broker, sub: Subscription, count: int, limit: int = 200) -> list[Delivery]:
    """Fetch all that is there, which is so many, `limit` at a time; then nothing is there."""
    found = list[Delivery]()
    while left := count - len(found):
        found += take(broker, sub, min(limit, left))
    assert not sub.fetch(1, MB)
    return found


def drain(sub: Subscription, limit: int = 200) -> list[Delivery]:
    """Fetch until nothing is there."""
    found: list[Delivery] = []
    while batch := sub.fetch(limit, MB):
        found += batch
    return found


def held(broker: Broker, count: int) -> int:
    """Return how many messages are leased: without leases what was taken is gone."""
    return count if has(broker, Capability.LEASE) else 0


def sized(broker: Broker, waiting: int, delayed: int, leased: int, dead: int) -> QueueSize:
    """Return what `size` gives where so many are in each part."""
    known = has(broker, Capability.SIZE_LEASED)
    return QueueSize(waiting, delayed, held(broker, leased) if known else -1, dead)


def counts(broker: Broker, delivery: Delivery, lost: int) -> bool:
    """Say whether a delivery tells that so many leases of its message were lost."""
    exact = has(broker, Capability.COUNTED)
    return delivery.deliveries == lost if exact else delivery.deliveries >= lost


def bodies(deliveries: Iterable[Delivery]) -> list[bytes]:
    """Return what is in them."""
    return [delivery.body for delivery in deliveries]
