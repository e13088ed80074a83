"""What the suites of brokers send, and how they receive it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from ..contracts import Broker, Capability, Delivery, Outgoing, Subscription

__all__ = [
    "BOUND", "MB", "QUEUE", "Open", "bodies", "drain", "fetch_some", "held", "needs", "next_some",
    "outgoing",
]  # fmt: skip

MB = 1 << 20
BOUND = 20.0  # seconds; only a failing test reaches it
QUEUE = "conformance"
Open = Callable[..., Subscription]  # subscribe(lease=30.0) to the suite's queue


def outgoing(n: int, queue: str = QUEUE, **options: float) -> Outgoing:
    """Return a message whose body is `{"n": n}`."""
    return Outgoing(queue, f"id{n}", b'{"n":%d}' % n, **options)  # type: ignore[arg-type]


def needs(broker: Broker, capability: Capability) -> None:
    """Skip where the broker does not claim the capability."""
    if capability not in broker.capabilities:
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


def drain(sub: Subscription, limit: int = 200) -> list[Delivery]:
    """Fetch until nothing is there."""
    found: list[Delivery] = []
    while batch := sub.fetch(limit, MB):
        found += batch
    return found


def held(broker: Broker, count: int) -> int:
    """Return how many messages `size` shows as leased: without leases what was taken is gone."""
    return count if Capability.LEASE in broker.capabilities else 0


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """Return what is in them."""
    return [delivery.body for delivery in deliveries]
