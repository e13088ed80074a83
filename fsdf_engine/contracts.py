"""The contracts a plug-in implements: Broker, Subscription, Pool, Valve, Gate, Sink, ResultStore.

Instants are Unix seconds and durations are seconds, both float. Brokers move opaque bytes; only the
engine knows what is inside a message. Values are frozen dataclasses or tuples; what exists once per
message (Outgoing, Delivery, Job, Record) is a plain slots class that nobody changes after decoding.
"""

from __future__ import annotations

from . import outcomes
from .execution import (
    Binder,
    Effect,
    Gate,
    Inbox,
    Job,
    Owner,
    Plan,
    Pool,
    PoolCapability,
    Record,
    ResultStore,
    Sink,
    Valve,
    finish,
)
from .messaging import (
    Broker,
    Capability,
    DeadMessage,
    Delivery,
    LeaseId,
    Outgoing,
    Part,
    QueueSize,
    Settlement,
    Subscription,
)

__all__ = [
    "Binder", "Broker", "Capability", "DeadMessage", "Delivery", "Effect", "Gate", "Inbox", "Job",
    "LeaseId", "Outgoing", "Owner", "Part", "Plan", "Pool", "PoolCapability", "QueueSize", "Record",
    "ResultStore", "Settlement", "Sink", "Subscription", "Valve", "finish",
    "outcomes",
]  # fmt: skip
