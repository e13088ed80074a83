"""What a running task can ask about itself: `current.task_id`, `current.attempt`, ..."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from ..contracts import Effect, Job
from ..errors import FsdfError, LeaseLost
from ..limits import limits_of
from .pushes import Pushes

__all__ = ["Forked", "current", "current_job", "is_forked"]

current_job: ContextVar[Job] = ContextVar("fsdf_job")


class Forked(SystemExit):
    """The copy of a run in a forked child has come back to us: it ends there."""


class _Nobody:
    """Owns the copy of a run in a forked child: the message is the parent's."""

    place = ("", "")

    def put(self, job: Job, /) -> None:
        """End the thread or greenlet, and what it alone keeps alive: the child."""
        error = getattr(job.outcome, "error", None)
        if error is None or isinstance(error, SystemExit):
            raise Forked(getattr(error, "code", 0))
        sys.excepthook(type(error), error, error.__traceback__)
        raise Forked(1)

    def commit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Store nothing."""
        raise LeaseLost(f"this is a forked child; the message {job.id} is its parent's")

    async def acommit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Store nothing."""
        self.commit(job, effects)


def is_forked(job: Job) -> bool:
    """Say whether we are in a forked child, and the run of this job is the parent's."""
    return type(getattr(job, "owner", None)) is _Nobody  # one that is unknown has none


def _disown() -> None:
    """In a forked child: the run that forked is the parent's, and what it pushes now is not."""
    if job := current_job.get(None):
        job.owner = _Nobody()
        if job.claims is not None:
            job.claims = [None]
        job.pushes = Pushes(random.SystemRandom().getrandbits(62))  # other ids than the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


class _Current:
    """The message that the calling code runs for. Outside a run every attribute raises."""

    __slots__ = ()

    def _job(self) -> Job:
        try:
            return current_job.get()
        except LookupError:
            raise FsdfError(
                "no task is running here; `current` can be used inside a task only"
            ) from None

    def __bool__(self) -> bool:
        return current_job.get(None) is not None

    @property
    def task_id(self) -> str:
        """The id that `push` returned, or one derived from a bare message."""
        return self._job().id

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self._job().plan.queue

    @property
    def task(self) -> str:
        """The task's name; empty for the only task of a queue."""
        return self._job().plan.name

    @property
    def args(self) -> tuple[Any, ...]:
        """What the function is called with by position; most arguments travel by name."""
        return tuple(self._job().args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """What the function is called with by name."""
        return dict(self._job().kwargs)

    @property
    def expires(self) -> float:
        """The instant after which the message would not have been run; 0.0 for none."""
        return float(self._job().extra.get("expires", 0.0))

    @property
    def limits(self) -> tuple[float, float]:
        """The soft and the hard limit of an attempt in seconds; 0 where there is none."""
        return limits_of(self._job())

    @property
    def attempt(self) -> int:
        """0 for the first attempt, 1 for the first retry, ..."""
        return self._job().attempt

    @property
    def deliveries(self) -> int:
        """How many workers lost this message before."""
        return self._job().delivery.deliveries

    @property
    def publish_time(self) -> float:
        """Unix seconds; 0.0 where the message does not say."""
        return self._job().published_at

    @property
    def headers(self) -> dict[str, Any]:
        """What the publisher sent beside the arguments."""
        return dict(self._job().extra.get("headers", {}))

    def __repr__(self) -> str:
        job = current_job.get(None)
        return f"<current task {job.id}>" if job else "<no current task>"


current = _Current()
