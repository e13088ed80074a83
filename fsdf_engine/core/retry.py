"""What an exception from user code means for its message. Pure."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import errors, outcomes
from ..outcomes import Deadline, Failed, Interrupted, Outcome, Rejected, Requeue, Retry, TimedOut

__all__ = ["IN_PLACE", "RetryPolicy"]

MOST = 1000  # exceptions of a group that are looked at
IN_PLACE = 1.0  # seconds; a longer wait goes through the broker, where it holds no slot


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_retries=n` means at most n + 1 attempts.

    The wait before retry k is `backoff * 2**k`, at most `backoff_max` seconds; with jitter a random
    part of its upper half.

    Raises:
        ConfigurationError: one of these two is no number of seconds.
    """

    max_retries: int = 3
    backoff: float = 0.0
    backoff_max: float = 600.0
    jitter: bool = True
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    never_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        for name, wait in (("backoff", self.backoff), ("backoff_max", self.backoff_max)):
            errors.seconds_of(name, wait, errors.ConfigurationError, wait)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after a failed attempt (from 0)."""
        if not self.backoff:
            return 0.0
        wait = min(self.backoff_max, self.backoff * 2.0 ** min(attempt, 64))
        if not self.jitter:
            return wait
        import random  # slow to import, and only failures need it

        return wait * random.uniform(0.5, 1.0)

    def outcome(self, error: BaseException, attempt: int, limit: float = 0.0) -> Outcome:
        """Return how an attempt that raised `error` ends.

        Of what steers inside a group of exceptions the first of `_STEERING` wins, of several of
        one class the longest delay.
        """
        leaves = _leaves(error)
        steering: list[Any] = next(filter(None, (_of(kind, leaves) for kind in _STEERING)), [error])
        match steering[0]:
            case Deadline():
                return TimedOut(limit)
            case Interrupted():
                return Failed(steering[0])
            case errors.Reject():
                return Rejected(outcomes.text_of(steering[0]) or "rejected by the task")
            case errors.Requeue():
                return Requeue(max(each.delay for each in steering))
        steered = isinstance(steering[0], errors.Retry)
        if attempt < self.max_retries and (steered or self._retries(error, leaves)):
            delays = [each.delay for each in steering] if steered else [None]
            backoff = self.delay(attempt) if None in delays else 0.0
            delay = max(backoff if d is None else d for d in delays)
            changes = next((e.changes for e in steering if e.changes), None) if steered else None
            return Retry(error, delay, attempt + 1, changes)
        if not steered:
            return Failed(error)
        reason = outcomes.told(error, f" (attempt {attempt + 1}, the last)")
        end = Failed(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        return end._replace(reason=reason, trace=outcomes.trace_of(end))

    def _retries(self, error: BaseException, leaves: Sequence[BaseException]) -> bool:
        if any(isinstance(each, self.never_on) for each in (error, *leaves)):
            return False
        return isinstance(error, self.retry_on) or all(isinstance(e, self.retry_on) for e in leaves)


_STEERING = (Deadline, Interrupted, errors.Reject, errors.Retry, errors.Requeue)


def _of(kind: type[BaseException], leaves: Sequence[Any]) -> list[Any]:
    return [each for each in leaves if isinstance(each, kind)]


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions that a group holds at any depth, `MOST` at most; of another itself."""
    module = sys.modules.get("exceptiongroup", builtins)  # a backport, before Python 3.11
    group = getattr(module, "BaseExceptionGroup", ())
    leaves, left = list[BaseException](), [error]
    while left and len(leaves) < MOST:
        if isinstance(each := left.pop(), group):
            # what it was made with: the attribute may be the user's, and never end
            left += reversed(group.__dict__["exceptions"].__get__(each))
        else:
            leaves.append(each)
    return leaves
