"""Celery's exceptions.

Exception
├── CeleryError
│   ├── ImproperlyConfigured, SecurityError
│   ├── TaskPredicate            raised by tasks; decides what becomes of the message
│   │   ├── Retry                the task runs again
│   │   ├── Ignore               nothing is stored
│   │   └── Reject               the message is refused, or goes back to its queue
│   └── TaskError
│       ├── QueueNotFound (KeyError), NotRegistered (KeyError), AlreadyRegistered
│       ├── IncompleteStream, InvalidTaskError, ChordError
│       ├── TimeoutError
│       └── MaxRetriesExceededError, TaskRevokedError
├── BackendError ── BackendGetMetaError, BackendStoreError
├── CeleryCommandException       a command's exit code (click's ClickException)
├── kombu's OperationalError     the broker cannot be reached
└── billiard's SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError, Terminated

CeleryWarning (UserWarning) ── AlwaysEagerIgnored, DuplicateNodenameWarning,
    DuplicateTaskNameWarning, FixupWarning, NotConfigured, SecurityWarning
SystemExit ── WorkerShutdown, WorkerTerminate
"""

from __future__ import annotations

import numbers
from typing import Any, NoReturn

from billiard.exceptions import (
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from click import ClickException
from kombu.exceptions import OperationalError
from kombu.utils.encoding import safe_repr

from .utils.serialization import get_pickleable_exception

__all__ = [
    "reraise",
    "CeleryWarning", "AlwaysEagerIgnored", "DuplicateNodenameWarning", "DuplicateTaskNameWarning",
    "FixupWarning", "NotConfigured", "SecurityWarning",
    "CeleryError", "ImproperlyConfigured", "SecurityError",
    "OperationalError",
    "TaskPredicate", "Ignore", "Reject", "Retry",
    "TaskError", "QueueNotFound", "IncompleteStream", "NotRegistered", "AlreadyRegistered",
    "TimeoutError", "MaxRetriesExceededError", "TaskRevokedError", "InvalidTaskError",
    "ChordError",
    "BackendError", "BackendGetMetaError", "BackendStoreError",
    "SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated",
    "CPendingDeprecationWarning", "CDeprecationWarning",
    "WorkerShutdown", "WorkerTerminate",
    "CeleryCommandException",
]  # fmt: skip

UNREGISTERED_FMT = "Task of kind {0} never registered, please make sure it's imported."


def reraise(tp: Any, value: BaseException, tb: Any = None) -> NoReturn:
    """Raise the exception with this traceback."""
    raise value if value.__traceback__ is tb else value.with_traceback(tb)


class CeleryWarning(UserWarning):
    """The root of the warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """`send_task` publishes, whatever `task_always_eager` says."""


class DuplicateNodenameWarning(CeleryWarning):
    """Several workers have one name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Several functions were declared under one name."""


class FixupWarning(CeleryWarning):
    """The glue to a framework could not do all it should."""


class NotConfigured(CeleryWarning):
    """There is no module of settings."""


class SecurityWarning(CeleryWarning):
    """Something may not be secure."""


class CeleryError(Exception):
    """The root of the errors."""


class TaskPredicate(CeleryError):
    """What a task raises to decide what becomes of its message."""


class Retry(TaskPredicate):
    """The task runs again: `when` seconds from now, or at an instant.

    `changes` are what the engine sends anew instead of its message.
    """

    message: str | None = None
    exc: Any = None
    when: Any = None

    def __init__(
        self,
        message: str | None = None,
        exc: Any = None,
        when: Any = None,
        is_eager: bool = False,
        sig: Any = None,
        changes: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(self, exc, when, **kwargs)
        self.excs: str | None
        self.message, self.when, self.is_eager, self.sig = message, when, is_eager, sig
        self.changes = changes
        if isinstance(exc, str):
            self.exc, self.excs = None, exc  # what it was is not known, only how it looked
        else:
            self.exc, self.excs = get_pickleable_exception(exc), safe_repr(exc) if exc else None

    def humanize(self) -> str:
        """Say when."""
        return f"in {self.when}s" if isinstance(self.when, numbers.Number) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}" + (f": {self.excs}" if self.excs else "")

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.exc, self.when)


RetryTaskError = Retry


class Ignore(TaskPredicate):
    """The worker asks no more of this message, and stores nothing."""


class Reject(TaskPredicate):
    """The message is refused, or with `requeue` goes back to its queue."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason, self.requeue = reason, requeue

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class ImproperlyConfigured(CeleryError):
    """A setting is wrong."""


class SecurityError(CeleryError):
    """Something is not allowed, or not signed as it should be."""


class TaskError(CeleryError):
    """The root of what is about tasks."""


class QueueNotFound(KeyError, TaskError):
    """No queue of this name is declared."""


class IncompleteStream(TaskError):
    """The data ended too early."""


class NotRegistered(KeyError, TaskError):
    """No task of this name is declared; a second argument says why it cannot be found."""

    def __str__(self) -> str:
        if len(self.args) != 2:
            return super().__str__()
        name, why = self.args
        return f"{name!r}: {why}"

    def __repr__(self) -> str:
        return UNREGISTERED_FMT.format(self)


class AlreadyRegistered(TaskError):
    """A task of this name is declared."""


class TimeoutError(TaskError):
    """What was waited for did not come in time."""


class MaxRetriesExceededError(TaskError):
    """The task asked for one more retry than it has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The message expired, or somebody revoked it."""


class InvalidTaskError(TaskError):
    """The message is not what a task needs."""


class ChordError(TaskError):
    """A part of a chord failed."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Something will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Something is deprecated."""


class WorkerTerminate(SystemExit):
    """The worker ends at once."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """The worker ends what runs, and then itself."""


class BackendError(Exception):
    """The root of what is about result backends."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """A result could not be stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state, self.task_id = kwargs.get("state", ""), kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


class CeleryCommandException(ClickException):
    """A command failed; `exit_code` says how."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
