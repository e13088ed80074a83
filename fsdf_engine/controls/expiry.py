"""Gate: messages that are too old are answered, not run."""

from __future__ import annotations

from collections.abc import Sequence

from ..contracts import Job
from ..outcomes import Expired, Invalid, Outcome

__all__ = ["Expiry"]


class Expiry:
    """A message older than its task allows, or past its own `extra.expires`, has expired.

    A message that does not say when it was published does not expire by age.
    """

    def judge(self, batch: Sequence[Job], now: float) -> Sequence[Outcome | None]:
        """See Gate."""
        if not [1 for job in batch if job.plan.max_age or "expires" in job.extra]:
            return [None] * len(batch)
        return [self._judge(job, now) for job in batch]

    def _judge(self, job: Job, now: float) -> Outcome | None:
        ends = job.extra.get("expires") or 0.0
        if not isinstance(ends, (int, float)):
            return Invalid(f"extra.expires is {ends!r}; give Unix seconds")
        limit = job.plan.max_age
        if limit and job.published_at:
            ends = min(ends or job.published_at + limit, job.published_at + limit)
        return Expired(ends) if ends and ends < now else None
