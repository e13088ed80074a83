"""Celery's exceptions.

CeleryError (FsdfError)
├── TaskPredicate                 raised by tasks; decides what becomes of the message
│   ├── Retry                     raised by `self.retry()`
│   ├── Ignore                    nothing more to do; the message is done
│   └── Reject                    to the dead letters, or back to the queue
├── TaskError
│   ├── MaxRetriesExceededError   `self.retry()` without an exception of its own, once too often
│   ├── NotRegistered (KeyError)  no task of this name
│   ├── TaskRevokedError          the message expired or was revoked
│   ├── TimeLimitExceeded         the run passed its time limit
│   ├── WorkerLostError           the run's worker died, again and again
│   └── TimeoutError (builtin)    `get` waited for as long as it was told to
├── ImproperlyConfigured (ConfigurationError)
└── NoResultBackend (NotImplementedError)

SoftTimeLimitExceeded is the engine's own SoftTimeLimit.
"""

from __future__ import annotations

import builtins
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from fsdf_engine import ConfigurationError, FsdfError, NotYetSupported
from fsdf_engine import SoftTimeLimit as SoftTimeLimitExceeded

__all__ = [
    "CeleryError", "Ignore", "ImproperlyConfigured", "MaxRetriesExceededError", "NoResultBackend",
    "NotRegistered", "NotYetSupported", "Reject", "Retry", "SoftTimeLimitExceeded", "TaskError",
    "TaskPredicate", "TaskRevokedError", "TimeLimitExceeded", "TimeoutError", "WorkerLostError",
]  # fmt: skip


class CeleryError(FsdfError):
    """The root of this layer's errors."""


class TaskPredicate(CeleryError):
    """What a task raises to decide what becomes of its message."""


class Retry(TaskPredicate):
    """The task runs again: `when` seconds from now, or at an instant; None: at once.

    `changes` are what the engine sends anew instead of its message.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: float | datetime.datetime | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, exc, when)
        self.message, self.exc, self.when = message, exc, when
        self.excs = repr(exc) if exc is not None else None
        self.is_eager, self.sig = kwargs.get("is_eager", False), kwargs.get("sig")
        self.changes: Mapping[str, Any] | None = kwargs.get("changes")

    def __str__(self) -> str:
        if self.message:
            return self.message
        when = self.when
        said = f"in {when}s" if isinstance(when, (int, float)) else f"at {when}" if when else "now"
        return f"Retry {said}: {self.excs}" if self.excs else f"Retry {said}"


class Ignore(TaskPredicate):
    """The worker asks no more of this message."""


class Reject(TaskPredicate):
    """The message goes to the dead letters, or with `requeue` back to its queue."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason, self.requeue = reason, requeue

    def __str__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class TaskError(CeleryError):
    """A task did not succeed."""


class MaxRetriesExceededError(TaskError):
    """The task asked for one more retry than it has."""

    def __init__(self, *args: object, **kwargs: Any) -> None:
        self.task_args: Sequence[Any] = kwargs.pop("task_args", ())
        self.task_kwargs: Mapping[str, Any] = kwargs.pop("task_kwargs", {})
        super().__init__(*args)


class NotRegistered(KeyError, TaskError):
    """No task of this name is known."""

    def __str__(self) -> str:
        return f"no task named {self.args[0]!r} is registered" if self.args else "not registered"


class TaskRevokedError(TaskError):
    """The message expired, or somebody revoked it."""


class TimeLimitExceeded(TaskError):
    """The run passed its time limit."""


class WorkerLostError(TaskError):
    """Workers died with this message, as often as is allowed."""


class TimeoutError(TaskError, builtins.TimeoutError):
    """The result did not come in the time that was given."""


class ImproperlyConfigured(CeleryError, ConfigurationError):
    """A setting is wrong."""


class NoResultBackend(CeleryError, NotImplementedError):
    """A result is asked for, and nothing keeps results."""
