"""The states of a task, by Celery's names, and what the engine's outcomes are called there."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ALL_STATES", "EXCEPTION_STATES", "FAILURE", "IGNORED", "OF_OUTCOME", "PENDING",
    "PROPAGATE_STATES", "READY_STATES", "RECEIVED", "REJECTED", "RETRY", "REVOKED", "STARTED",
    "SUCCESS", "UNREADY_STATES",
]  # fmt: skip

PENDING = "PENDING"
RECEIVED = "RECEIVED"
STARTED = "STARTED"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"
RETRY = "RETRY"
IGNORED = "IGNORED"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = READY_STATES | UNREADY_STATES

# Whatever is not named here ended without a value: FAILURE.
OF_OUTCOME: Mapping[str, str] = {
    "pending": PENDING,
    "retry": RETRY,
    "succeeded": SUCCESS,
    "revoked": REVOKED,
    "expired": REVOKED,
}
