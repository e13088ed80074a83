"""Every error that the engine raises, and what user code may raise to steer its message.

FsdfError
├── ConfigurationError (ValueError)     wrong option, key or combination; raised at declaration
│   ├── NotYetSupported                 a known option, broker or name that this version lacks
│   ├── MissingExtra (ImportError)      an optional client is not installed
│   └── ServerRefused                   wrong password, or a server too old: no retry will help
├── ArgumentError (TypeError)           a call does not fit the function, or a value is not JSON
├── BrokerError
│   ├── Unavailable                     the server cannot be reached: no message is at fault
│   │   └── Unanswered                  it was sent, and no answer came: perhaps it took effect
│   └── PublishError                    names the messages that were not, or perhaps not, stored
├── LeaseLost                           another worker has the message; what this run does is void
├── UnknownTask                         no task of this name is declared
├── SoftTimeLimit                       raised inside a run that has passed its soft limit
├── ResultError
│   ├── ResultTimeout (TimeoutError)    the result did not come in time
│   ├── ResultDeadlock                  a run waits for what only its own full pool could run
│   └── TaskFailed                      the run ended without a value; carries the remote traceback
└── Steering                            raised by user code, never by the engine
    ├── Retry = ExceptionForRetry       run again, counted as an attempt
    ├── Requeue = ExceptionForRequeue   back to the queue, not counted
    └── Reject                          to the dead letters at once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from threading import TIMEOUT_MAX
from typing import Any, Protocol

__all__ = [
    "LARGEST", "ArgumentError", "BrokerError", "ConfigurationError", "ExceptionForRequeue",
    "ExceptionForRetry", "FsdfError", "LeaseLost", "MissingExtra", "NotYetSupported",
    "PublishError", "Reject", "Requeue", "ResultDeadlock", "ResultError", "ResultTimeout", "Retry",
    "ServerRefused", "SoftTimeLimit", "Steering", "TaskFailed", "Unanswered", "Unavailable",
    "UnknownTask", "cause_of", "duration_of", "patience_of", "seconds_of",
]  # fmt: skip

LARGEST = 1e14  # seconds: more than timedelta.max, and what every broker can count


def duration_of(name: str, given: object, kind: type[Exception]) -> float:
    """Return the seconds of a duration, a timedelta or seconds.

    Raises:
        kind: it is none; names it.
    """
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    return seconds_of(name, seconds, kind, given, "a timedelta, or seconds")


def seconds_of(
    name: str, seconds: object, kind: type[Exception], given: object, forms: str = "seconds"
) -> float:
    """Return seconds that may be any number from 0; `given` is what they were made of.

    Raises:
        kind: it is none; names it.
    """
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if number and 0 <= seconds <= LARGEST:  # type: ignore[operator]
        return seconds  # type: ignore[return-value]
    raise kind(f"{name}={given!r}: give {forms} from 0 to {LARGEST:g}")


def patience_of(timeout: object) -> float | None:
    """Return for how many seconds to wait, None: for ever. Below 0 no time is left.

    Raises:
        ArgumentError: `timeout` is no duration; names it.
    """
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, (int, float)) and seconds < 0:
        return 0.0
    return min(duration_of("timeout", timeout, ArgumentError), TIMEOUT_MAX)


class FsdfError(Exception):
    """The root of all errors of the engine."""


class ConfigurationError(FsdfError, ValueError):
    """An option, a configuration key or a combination of them is wrong."""


class NotYetSupported(ConfigurationError):
    """A known option, broker or name that this version lacks."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency is not installed; the message names the `pip install` line."""


class ServerRefused(ConfigurationError):
    """The server answered and refuses us: a wrong password, or it is too old."""


class ArgumentError(FsdfError, TypeError):
    """A call does not fit the function's signature, or a value has no JSON form."""


class BrokerError(FsdfError):
    """Something went wrong between a broker and us."""


class Unavailable(BrokerError):
    """The server cannot be reached: no message is at fault, the same call may succeed later."""


class Unanswered(Unavailable):
    """The connection died after something had been sent: perhaps it took effect."""


class _Message(Protocol):
    """What `Outgoing` of the contracts has, which build on this module."""

    queue: str
    id: str
    body: bytes


class PublishError(BrokerError):
    """Some messages were not stored: `rejected` surely not, `unknown` perhaps.

    `__cause__`, where there is one, is the server's or the client's error, and told with it.
    """

    def __init__(self, rejected: Sequence[_Message], unknown: Sequence[_Message] = ()) -> None:
        told = []
        if (n := len(rejected)) == 1:
            told.append("1 message was rejected: push it again")
        elif n:
            told.append(f"{n} messages were rejected: push them again")
        if n := len(unknown):
            told.append(
                f"whether the broker stored {n} message{'s' * (n > 1)} is unknown: publish"
                f" {'them' if n > 1 else 'it'} again under the same task_id"
            )
        super().__init__("; ".join(told))
        self.rejected, self.unknown = rejected, unknown

    def part(self, rejected: Sequence[_Message], unknown: Sequence[_Message]) -> PublishError:
        """Return the same error about some of the messages."""
        error = PublishError(rejected, unknown)
        error.__cause__ = self.__cause__
        return error

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.__cause__ is None else f"{text}; cause: {self._told()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_told_cause, (type(self), self.rejected, self.unknown, self._told())

    def _told(self) -> str | None:
        cause = self.__cause__
        return None if cause is None else str(cause) or type(cause).__name__


def _with_told_cause(
    kind: type[PublishError], rejected: Sequence[Any], unknown: Sequence[Any], told: str | None
) -> PublishError:
    """Return a copy; a client's error may not be pickled, so another has its text."""
    error = kind(rejected, unknown)
    error.__cause__ = None if told is None else BrokerError(told)
    return error


class LeaseLost(FsdfError):
    """The message is no longer ours; what this run does further has no effect."""


class UnknownTask(FsdfError):
    """No task of this name is declared on the queue."""


class SoftTimeLimit(FsdfError):
    """Raised inside a run that has passed its soft limit: it may clean up, and return all the same.

    An exception as any other: not caught, it is a failure, and retried as the task says.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args or ("the run has passed its soft time limit",))


class ResultError(FsdfError):
    """A result cannot be given."""


class ResultTimeout(ResultError, TimeoutError):
    """The result did not arrive in time; the task may still end later."""


class ResultDeadlock(ResultError):
    """A run waits for a result that only its own, full, pool could produce."""


class TaskFailed(ResultError):
    """The run did not succeed; says how it ended and carries the worker's traceback."""

    def __init__(self, message: str, *, status: str, kind: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.traceback = traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self.traceback}" if self.traceback else text

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), status=self.status), self.args, self.__dict__


class Steering(FsdfError):
    """What user code raises to decide what happens to its message."""


class Retry(Steering):
    """Run the message again: counted as an attempt, after `delay`, a timedelta or seconds.

    Without a delay the task's backoff decides. With `changes` the message is sent anew, under the
    same task id: `args` and `kwargs` (in place of all its arguments), `queue` (of the same broker),
    `task` (its name there; "" for the only task of a queue), `priority`, `expires` (Unix seconds),
    `headers` and `limits` ([soft, hard] seconds).

    Raises:
        ConfigurationError: the delay is no duration.
    """

    def __init__(
        self,
        *args: object,
        delay: float | timedelta | None = None,
        changes: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(*args)
        self.delay = None if delay is None else _delay(delay)
        self.changes = changes


class Requeue(Steering):
    """Give the message back, `delay` (a timedelta or seconds) later; not counted as an attempt.

    Raises:
        ConfigurationError: the delay is no duration.
    """

    def __init__(self, *args: object, delay: float | timedelta = 1.0) -> None:
        super().__init__(*args)
        self.delay = _delay(delay)


class Reject(Steering):
    """Send the message to the dead letters at once, with this reason."""


def _delay(given: float | timedelta) -> float:
    return float(duration_of("delay", given, ConfigurationError))


def cause_of(error: BaseException) -> BaseException | None:
    """Return what a `Retry` was raised from, or else what was handled where it was raised.

    Of one that was raised for another it is what the innermost was raised for. None: there is no
    such thing, or the error is another one. Runs no code of the error's class.
    """
    found: BaseException | None = error if issubclass(type(error), Retry) else None
    for _ in range(100):  # retries may refer to each other
        if found is None or not issubclass(type(found), Retry):
            return found
        cause, context, hidden = (BaseException.__dict__[name].__get__(found) for name in _CHAIN)
        found = context if cause is None and not hidden else cause
    return None


_CHAIN = ("__cause__", "__context__", "__suppress_context__")
ExceptionForRetry = Retry
ExceptionForRequeue = Requeue
