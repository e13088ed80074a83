"""What a task's exception means for its message, as Celery has it. Pure."""

from __future__ import annotations

import datetime
import random
import time
from dataclasses import dataclass

from fsdf_engine import RetryPolicy
from fsdf_engine.contracts import outcomes

from ..exceptions import Ignore, Reject, Retry
from .options import instant

__all__ = ["CeleryPolicy", "seconds_until"]


@dataclass(frozen=True, slots=True)
class CeleryPolicy(RetryPolicy):
    """`limit` retries of what is in `retry_on`, without limit where it is None."""

    limit: int | None = 3
    wait: float = 180.0  # seconds, where there is no backoff

    def outcome(self, error: BaseException, attempt: int, limit: float = 0.0) -> outcomes.Outcome:
        """Return how an attempt that raised `error` ends."""
        match error:
            case Retry():
                cause = error.exc if error.exc is not None else error
                return outcomes.Retry(cause, seconds_until(error.when), attempt + 1, error.changes)
            case Ignore():
                return outcomes.SUCCEEDED
            case Reject(requeue=True):
                return outcomes.Requeue()
            case Reject():
                return outcomes.Rejected(str(error.reason or "rejected by the task"))
        if not isinstance(error, self.retry_on) or isinstance(error, self.never_on):
            return RetryPolicy.outcome(self, error, attempt, limit)
        if self.limit is not None and attempt >= self.limit:
            return outcomes.Failed(error)
        return outcomes.Retry(error, self.delay(attempt), attempt + 1)

    def delay(self, attempt: int) -> float:
        """Return the seconds before retry `attempt`: whole ones, with full jitter if any."""
        if not self.backoff:
            return self.wait
        most = int(min(self.backoff_max, self.backoff * 2 ** min(attempt, 64)))
        return float(random.randrange(most + 1) if self.jitter else most)


def seconds_until(when: float | datetime.datetime | None) -> float:
    """Return the wait that `Retry.when` asks for."""
    if isinstance(when, datetime.datetime):
        when = instant(when) - time.time()
    return max(0.0, when or 0.0)
