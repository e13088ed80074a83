"""What a consumer serves: the plans of its tasks, and which of them a message is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..contracts import Codec, Delivery, Job, Owner, Plan, lost_leases
from ..outcomes import Lost, Outcome, Unknown
from .binding import unbound
from .ending import POISON
from .forms import limit, read
from .isolation import ORDINARY

__all__ = ["Served"]


class Served:
    """Belongs to a consumer's thread. `suspicious`: some message was lost again and again."""

    owner: Owner  # of the jobs that it makes

    def __init__(self, queue: str, codecs: Sequence[Codec]) -> None:
        self.plans: dict[str, Plan] = {}
        self.any = Plan("", queue, None, None, unbound)  # of messages without a known task
        self.early = self.suspicious = False  # `early`: some task wants to be acknowledged ahead
        self._queue, self._codecs = queue, codecs
        self._only: Plan | None = None
        self._limits = False  # some task has them

    def add(self, plan: Plan) -> None:
        """Serve one more task."""
        self.plans[plan.name] = plan
        self.early = self.early or plan.early
        self._only = plan if len(self.plans) == 1 and not plan.name else None
        self._limits = any(p.timeout or p.soft for p in self.plans.values())
        sinks = tuple(dict.fromkeys(s for p in self.plans.values() for s in p.sinks))
        self.any = self.any._replace(sinks=sinks)

    def suspect(self, jobs: Iterable[Job]) -> None:
        """Learn whether some of them were lost again and again."""
        self.suspicious |= any(lost_leases(job) > ORDINARY for job in jobs)

    def open(self, deliveries: Iterable[Delivery]) -> tuple[list[Job], list[tuple[Job, Outcome]]]:
        """Make jobs of messages; return those that may run, and others with how they end.

        Runs no user code.
        """
        jobs, answers = list[Job](), list[tuple[Job, Outcome]]()
        for delivery in deliveries:
            job = Job()
            job.delivery, job.owner = delivery, self.owner
            if (outcome := self._read(job)) is None:
                jobs.append(job)
            else:
                answers.append((job, outcome))
        return jobs, answers

    def _read(self, job: Job) -> Outcome | None:
        job.plan, job.claims, job.acked, job.pushes = self.any, None, False, None
        if misread := read(job, self._queue, self._codecs):
            return misread
        extra, delivery = job.extra, job.delivery
        name = extra.get("task")
        plan = self._only if name is None else self.plans.get(name) if type(name) is str else None
        if plan is None:
            return Unknown("" if name is None else str(name))
        job.plan = plan
        if (self._limits or "limits" in extra) and (misread := limit(job)):
            return misread
        if delivery.state:
            job.attempt = delivery.state.get("attempt", job.attempt)
        if delivery.deliveries > ORDINARY and (lost := lost_leases(job)):
            self.suspicious = True
            return Lost(lost) if lost > POISON else None
        return None
