"""Events for whoever wants to know; a failing listener harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any, TypeAlias

from .contracts import Job, Plan, Report
from .errors import SoftTimeLimit
from .outcomes import ACK, SUCCEEDED, Deadline, Interrupted, Outcome, Retry, Succeeded

__all__ = ["EVENTS", "Listener", "Listeners", "tell_ends"]
log = logging.getLogger("fsdf.listeners")

Listener: TypeAlias = Callable[..., object]
# Those of one message come in this order; one that goes back is received anew. A listener that
# hangs holds up the thread that it is called in: that of the consumer, which fetches no more; of a
# run, whose limits count from when its start is told, until the worker stops; of the pool of
# PROCESSES, which starts no more; of the limits, which end no run; of the outbox, which stores no
# more. What is held stays leased. So one that may wait hands over to a thread of its own.
EVENTS = {
    "consumer_started": "queue",
    "consumer_stopped": "queue",
    "messages_received": "jobs; all that a fetch has brought, before each is told by itself",
    "message_received": "job; in the consumer's thread, before anything is decided about it",
    "run_started": "job; where it runs, or in the pool's thread if that is another process",
    "run_retried": "job, outcome; likewise; or by the outbox, if the message goes back meanwhile",
    "soft_limit_passed": "job, seconds; in the thread of the limits: the consumer's or the pool's",
    # texts of a failure are in the outcome; what a child returned stays there
    "run_ended": "job, outcome; in the outbox's thread, after the effects are stored",
}
_MEANT = (Deadline, Interrupted, SoftTimeLimit)  # for the run in which a listener is told


class Listeners:
    """Who listens to what. Registration is meant for start-up; emitting copies nothing."""

    def __init__(self) -> None:
        self._by_event: dict[str, tuple[Listener, ...]] = {}

    def add(self, event: str, listener: Listener) -> None:
        """Call `listener(**facts)` at each such event, in the thread where it happens.

        Consumers that run already may not tell it.

        Raises:
            ValueError: there is no such event.
        """
        if event not in EVENTS:
            raise ValueError(f"unknown event {event!r}; there are {', '.join(EVENTS)}")
        self._by_event[event] = (*self._by_event.get(event, ()), listener)

    def wants(self, *events: str) -> bool:
        """Say whether anybody listens to one of these."""
        return not self._by_event.keys().isdisjoint(events)

    def hear(self, plan: Plan) -> Plan:
        """Return the plan with the starts and retries of its runs told, where somebody listens."""
        if self.wants("soft_limit_passed"):
            plan = plan._replace(warns=self.emit)
        if not self.wants("run_started", "run_retried"):
            return plan
        run, arun = plan.run, plan.arun

        def told(job: Job) -> Outcome:
            self.emit("run_started", inside=True, job=job)
            return run(job)  # type: ignore[misc]

        async def atold(job: Job) -> Outcome:
            self.emit("run_started", inside=True, job=job)
            return await arun(job)  # type: ignore[misc]

        return plan._replace(run=run and told, arun=arun and atold, emit=self.emit)

    def emit_received(self, *groups: Sequence[Job]) -> None:
        """Tell everybody of what a fetch has brought, together and one by one."""
        if self.wants("messages_received", "message_received"):
            jobs = [*chain(*groups)]
            self.emit("messages_received", jobs=jobs)
            for job in jobs if self.wants("message_received") else ():
                self.emit("message_received", job=job)

    def emit(self, event: str, /, *, inside: bool = False, **facts: Any) -> None:
        """Tell everybody; their errors are logged.

        `inside` a run its limits and its worker's stop are not theirs, and are raised.
        """
        for listener in self._by_event.get(event, ()):
            try:
                listener(**facts)
            except BaseException as error:  # SystemExit, too, would end the thread of the outbox
                if inside and type(error) in _MEANT:
                    raise
                log.exception("a listener of %s failed; the others are told", event)


def tell_ends(
    jobs: Sequence[Job],
    report: Report | None,
    listeners: Listeners | None,
    lost: Collection[object],
) -> None:
    """Tell of ends that are stored; to the report of those only that are not plain, nor lost."""
    for job in jobs:
        outcome = job.outcome
        if type(outcome) is not Succeeded or job.verdict is not ACK:
            if report and job.delivery.lease not in lost:
                report.ended(job, outcome)
            job.outcome = SUCCEEDED  # an error holds its frames, and they hold the job
        if listeners:
            if type(outcome) is Retry:
                listeners.emit("run_retried", job=job, outcome=outcome)
            listeners.emit("run_ended", job=job, outcome=outcome)
