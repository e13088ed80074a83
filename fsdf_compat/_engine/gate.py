"""The layer's gate: what is revoked here, lost once too often, or over its task's rate.

It judges messages that have come, in the consumer's thread, before they are acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fsdf_engine.contracts import Job, lost_leases, outcomes

from ..utils.functional import maybe_list
from ..utils.time import rate

__all__ = ["CelerysGate"]
AHEAD = 60.0  # seconds; what has no place within them is judged again later


class CelerysGate:
    """Judges the messages of one app."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._state: Any = import_module("..worker.state", __package__)
        self._next: dict[str, float] = {}  # when the next message of a task may start
        self._limits: dict[str, float] = {}  # seconds between two of them
        self._fragile: frozenset[str] = frozenset()  # tasks whose messages run once at most
        self.reset()

    def reset(self) -> None:
        """Read the tasks' rate limits anew."""
        conf, tasks = self._app.conf, dict(self._app._tasks)
        usual = conf.task_default_rate_limit
        limits: dict[str, float] = {}
        for name, task in tasks.items():
            if per_second := rate(usual if task.rate_limit is None else task.rate_limit):
                limits[name] = 1.0 / per_second
        self._limits = {} if conf.worker_disable_rate_limits else limits
        self._fragile = frozenset(
            name for name, task in tasks.items() if task.acks_late and _is_fragile(task)
        )

    def judge(self, batch: Sequence[Job], now: float) -> Sequence[outcomes.Outcome | None]:
        """See Gate."""
        revoked = self._state.revoked
        if not (revoked or self._state.revoked_stamps or self._limits or self._fragile):
            return [None] * len(batch)
        return [self._judge(job, now, revoked) for job in batch]

    def _judge(self, job: Job, now: float, revoked: Any) -> outcomes.Outcome | None:
        if job.id in revoked or (self._state.revoked_stamps and self._has_revoked_stamp(job)):
            return outcomes.Revoked()
        name, state = job.plan.name, job.delivery.state or {}
        if name in self._fragile and (lost := lost_leases(job) + state.get("crashes", 0)):
            return outcomes.Lost(lost)
        if (pause := self._limits.get(name)) is None or state.get("permit"):
            return None
        return self._reserve(name, pause, now)

    def _has_revoked_stamp(self, job: Job) -> bool:
        """Say whether a message has a stamp by which tasks are revoked."""
        stamps = (job.extra.get("headers") or {}).get("stamps")
        if not isinstance(stamps, dict):
            return False
        return any(
            value in maybe_list(revoked)
            for name, revoked in self._state.revoked_stamps.items()
            for value in maybe_list(stamps.get(name)) or ()
        )

    def _reserve(self, name: str, pause: float, now: float) -> outcomes.Outcome | None:
        """Reserve the next start of a task: now, or later, with a permit."""
        at = max(self._next.get(name, 0.0), now)
        if at > now + AHEAD:
            return outcomes.Deferred(now + max(AHEAD, (at - now) / 2))
        self._next[name] = at + pause
        return None if at <= now else outcomes.Deferred(at, "rate")


def _is_fragile(task: Any) -> bool:
    """Say whether a task insists on failing when its worker is lost."""
    return task.reject_on_worker_lost is False and not getattr(task, "retry_on_worker_lost", False)
