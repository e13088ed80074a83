"""What an exception from user code means for its message. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .. import errors
from ..outcomes import Deadline, Failed, Interrupted, Outcome, Rejected, Requeue, Retry, TimedOut

__all__ = ["IN_PLACE", "RetryPolicy"]

IN_PLACE = 1.0  # seconds; a longer wait goes through the broker, where it holds no slot


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_retries=n` means at most n + 1 attempts.

    The wait before retry k is `backoff * 2**k`, at most `backoff_max` seconds; with jitter a random
    part of its upper half.
    """

    max_retries: int = 3
    backoff: float = 0.0
    backoff_max: float = 600.0
    jitter: bool = True
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    never_on: tuple[type[BaseException], ...] = ()

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
        """Return how an attempt that raised `error` ends."""
        match error:
            case Deadline():
                return TimedOut(limit)
            case Interrupted():
                return Failed(error)
            case errors.Reject():
                return Rejected(str(error) or "rejected by the task")
            case errors.Requeue():
                return Requeue(max(0.0, error.delay))
        steered = isinstance(error, errors.Retry)
        if attempt < self.max_retries and (steered or self._retries(error)):
            delay = error.delay if isinstance(error, errors.Retry) else None
            wait = self.delay(attempt) if delay is None else max(0.0, delay)
            return Retry(error, wait, attempt + 1)
        cause = error.__cause__ if steered and isinstance(error.__cause__, Exception) else error
        return Failed(cause)

    def _retries(self, error: BaseException) -> bool:
        return isinstance(error, self.retry_on) and not isinstance(error, self.never_on)
