"""Tells, for one consumer, what becomes of its messages: each failure, and figures at intervals.

The thread that tells the figures lives only while there is something to tell.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from random import random

from ..contracts import Job, Plan, QueueSize, Report
from ..core.consumer import Consumer
from ..outcomes import (
    Deferred,
    Expired,
    Failed,
    Filtered,
    Invalid,
    Lost,
    Outcome,
    Rejected,
    Requeue,
    Retry,
    Revoked,
    TimedOut,
    Unknown,
    frames_of,
    text_of,
)
from ..outcomes import ended as is_end
from .ends import End, end_of, retry_of
from .figures import Counts, Durations, Figures, Pace, told
from .runs import facts_of, measured, tell, tell_raised, traced
from .storms import Storms

__all__ = ["Reports"]
SAMPLED = 8  # runs that are measured of each fetch, at least, if it has so many
GIVEN_UP = {Failed, Invalid, Lost, Rejected, TimedOut, Unknown}
NO_RUN = {Deferred, Expired, Filtered, Invalid, Lost, Requeue, Revoked, Unknown}


class Reports(Report):
    """`look` says how to see dead letters; with `shows` the bodies of messages are logged.

    `size` asks the broker, once per interval, and never when nothing has happened.
    """

    def __init__(
        self,
        consumer: Consumer,
        logger: logging.Logger,
        *,
        size: Callable[[], QueueSize],
        interval: float,
        look: str,
        shows: bool = False,
    ) -> None:
        self._consumer, self._queue = consumer, consumer.queue
        self._logger, self._look = logger, look
        self._size, self._interval = size, interval
        self._messages = logger.getChild("messages") if shows else None
        if self._messages:
            self._messages.setLevel(logging.DEBUG)
        self._storms, self._durations, self._pace = Storms(), Durations(), Pace()
        self._measured: dict[str, Plan] = {}  # by the task's name
        self._not_run = self._failed = 0
        self._told, self._told_at = Counts(), time.monotonic()
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ what the consumer says

    def watch(self, plan: Plan, /) -> Plan:
        """Return the plan with its failures told, and at DEBUG all its runs."""
        plan = traced(plan._replace(report=self), self._logger)
        self._measured[plan.name] = measured(plan, self._durations.add)
        return plan

    def fetched(self, jobs: Sequence[Job], /) -> None:
        """Measure some of the runs, and begin to tell figures."""
        step = max(1, len(jobs) // SAMPLED)
        for job in jobs[int(step * random()) :: step]:
            job.plan = self._measured.get(job.plan.name, job.plan)
        if self._messages:
            for job in jobs:
                body = job.delivery.body.decode(errors="backslashreplace")
                tell(self._messages, logging.DEBUG, "fetched from queue %s: %s", self._queue, body)
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._told_at = time.monotonic()
                thread = threading.Thread(target=self._live, name="fsdf-reports", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:  # the interpreter ends
                    self._closed.set()

    def retried(self, job: Job, outcome: Retry, /) -> None:
        """Tell of a failed attempt."""
        self._failed += 1
        self._tell(job, retry_of(job, outcome))

    def ended(self, job: Job, outcome: Outcome, /) -> None:
        """Tell how a message ended."""
        if isinstance(outcome, Retry):
            return self.retried(job, outcome)
        self._not_run += type(outcome) in NO_RUN
        self._failed += type(outcome) in GIVEN_UP and is_end(outcome)
        if end := end_of(job, outcome, self._look):
            self._tell(job, end)
        return None

    def close(self) -> None:
        """Tell what has not been told; asks the broker nothing."""
        self._closed.set()
        if self._thread:
            self._thread.join(1.0)
        self._tell_interval(None)

    # ------------------------------------------------------------------ telling

    def _tell(self, job: Job, end: End) -> None:
        if not self._logger.isEnabledFor(end.level):
            return None
        if not self._storms.is_new(end.kind, end.level, end.text):
            return None
        facts = facts_of(job, place=end.place) if end.place else facts_of(job)
        if end.error is None or not job.plan.trace:
            return tell(self._logger, end.level, "%s", end.message(), extra=facts)
        raised = type(end.error), end.error, frames_of(end.error)
        return tell_raised(self._logger, end.level, end.message(), raised, end.trace, facts)

    def _live(self) -> None:
        """Tell the figures of each interval, until one has passed idly. Its own thread."""
        seen = -1
        while not self._closed.wait(self._interval):
            self._tell_interval(self._size)
            with self._lock:
                if self._consumer.fetched == seen and not self._consumer.held():
                    self._thread = None
                    return
                seen = self._consumer.fetched

    def _tell_interval(self, size: Callable[[], QueueSize] | None) -> None:
        for storm in self._storms.take():
            since = f"in the last {time.monotonic() - self._told_at:.0f} s"
            count = f"{storm.untold:,}"
            tell(self._logger, storm.level, "%s more %s: %s", count, since, storm.text)
        before, now, at = self._told, self._counts(), time.monotonic()
        if size is None and (last := self._durations.last) > self._told_at:
            at = last  # at a stop: how long the worker had nothing to do says nothing of a rate
        seconds, self._told, self._told_at = at - self._told_at, now, at
        if now == before or not self._logger.isEnabledFor(logging.INFO):
            return
        seconds = max(seconds, 1.0)  # a worker may end sooner; less says nothing of a rate
        starts = max(0, now.started - before.started) / seconds
        p50, p95 = self._durations.take() or (None, None)
        figures = Figures(round(starts, 2), now.failed - before.failed, p50, p95)
        if size is not None and (counted := self._counted(size)):
            left = self._pace.left(counted.waiting, seconds, starts)
            more = {"waiting": counted.waiting, "delayed": counted.delayed, "seconds_left": left}
            figures = Figures(**{**asdict(figures), **more})
        facts = {name: value for name, value in asdict(figures).items() if value is not None}
        extra = {"queue": self._queue, **facts}
        tell(self._logger, logging.INFO, "queue %s: %s", self._queue, told(figures), extra=extra)

    def _counts(self) -> Counts:
        consumer = self._consumer
        running = sum(job.owner is consumer.outbox for job in consumer.pool.running())
        settled = consumer.outbox.settled
        return Counts(settled - self._not_run + running, self._failed, settled)

    def _counted(self, size: Callable[[], QueueSize]) -> QueueSize | None:
        try:
            counted = size()
        except Exception as error:  # the figures are told without it
            why = text_of(error, repr)
            tell(self._logger, logging.DEBUG, "cannot count queue %s: %s", self._queue, why)
            return None
        return counted if counted.waiting >= 0 else None
