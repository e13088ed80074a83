"""How a message's handling ends: outcomes, verdicts, and the pure mapping between them.

Named tuples: as dataclasses their making took a fifth of the time to import the package. Ask for
their type; two of different types may compare equal, and one without fields is false.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

State: TypeAlias = Mapping[str, Any]
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Deadline(BaseException):
    """Raised inside a run that has passed its deadline."""


class Interrupted(BaseException):
    """Raised inside a run for which a stopping worker waits no longer; its message goes back."""


class Succeeded(NamedTuple):
    """The function returned."""

    value: Any = None


class Failed(NamedTuple):
    """The function raised, and no attempt is left. `trace` is text where the error is remote."""

    error: BaseException
    trace: str = ""


class Retry(NamedTuple):
    """The attempt failed and another follows after `delay` seconds."""

    error: BaseException
    delay: float
    attempt: int  # the number of the attempt to come, from 0


class Requeue(NamedTuple):
    """Not started, or not to be counted: back to the queue."""

    delay: float = 0.0


class Rejected(NamedTuple):
    """The function sent its message to the dead letters."""

    reason: str


class TimedOut(NamedTuple):
    """The run passed its `function_timeout`."""

    limit: float


class Expired(NamedTuple):
    """The message was too old when its turn came."""

    at: float


class Filtered(NamedTuple):
    """An equal message has been handled already."""

    key: str


class Revoked(NamedTuple):
    """Somebody cancelled the message."""


class Invalid(NamedTuple):
    """The body is no message, or does not fit the function."""

    reason: str


class Unknown(NamedTuple):
    """No task of this name is declared here."""

    task: str


class Deferred(NamedTuple):
    """To be judged again at an instant; goes back with its permit, not counted."""

    until: float
    permit: str | None = None


class Lost(NamedTuple):
    """Its lease ended too often: the message kills its workers."""

    deliveries: int


class Crashed(NamedTuple):
    """The child process died during the run; repeated, but counted toward the poison limit."""

    exitcode: int


Outcome: TypeAlias = (
    Succeeded | Failed | Retry | Requeue | Rejected | TimedOut | Expired | Filtered | Revoked
    | Invalid | Unknown | Deferred | Lost | Crashed
)  # fmt: skip
SUCCEEDED = Succeeded()  # of every run that returned None


class Ack(NamedTuple):
    """Remove the message."""


class Release(NamedTuple):
    """Give it back, `delay` seconds from now on the server's clock; `state` returns with it.

    `state` is JSON under 1 KB. Without a delay the message is the first in line.
    """

    delay: float = 0.0
    state: State | None = None


class DeadLetter(NamedTuple):
    """Keep it apart with the reason, to be looked at and replayed."""

    reason: str
    trace: str = ""


Verdict: TypeAlias = Ack | Release | DeadLetter
ACK = Ack()


def ended(outcome: Outcome) -> bool:
    """Say whether this outcome is the message's end; otherwise it comes back."""
    if type(outcome) is Failed:
        return not isinstance(outcome.error, Interrupted)
    return type(outcome) not in (Requeue, Deferred, Retry, Crashed)


def trace_of(outcome: Failed) -> str:
    """Return the traceback as text, the engine's own frames left out."""
    if outcome.trace:
        return outcome.trace
    error = outcome.error
    tb = error.__traceback__
    while tb and tb.tb_next and tb.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        tb = tb.tb_next
    return text_of(error, lambda e: "".join(traceback.format_exception(type(error), error, tb)))


def text_of(value: object, convert: Callable[[object], str] = str) -> str:
    """Return a value's text whatever it is: user code may fail here, and no UTF-8 carries all."""
    try:
        return convert(value).encode(errors="backslashreplace").decode()
    except BaseException as error:
        return f"<{type(value).__name__} without text: {type(error).__name__}>"


def rebuilt(module: str, name: str, args: Sequence[Any] | None) -> BaseException | None:
    """Return an exception of a class that is imported already; nothing is imported for it."""
    kind: Any = sys.modules.get(module)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    if args is None or not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    try:
        error = kind(*args)
    except Exception:  # its constructor wants something else
        return None
    return error if type(error) is kind else None


def describe(outcome: Outcome) -> str:
    """Return one line for people: how it ended, and why."""
    match outcome:
        case Failed(error):
            return f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")
        case Rejected(reason) | Invalid(reason):
            return text_of(reason)
        case TimedOut(limit):
            return f"the run passed its limit of {limit:g} s"
        case Expired(at):
            return f"the message expired at {at:.3f}"
        case Filtered(key):
            return f"an equal message has run before: {key}"
        case Unknown(task):
            return f"no task named {task!r} is declared on this queue"
        case Lost(deliveries):
            return f"its lease was lost {deliveries} times: its runs kill their worker"
    return type(outcome).__name__.lower()


def verdict_for(outcome: Outcome, now: float, state: State | None = None) -> Verdict:
    """What the broker is told about an outcome; `state` is what comes back uncounted. Pure."""
    match outcome:
        case Succeeded() | Expired() | Filtered() | Revoked():
            return ACK
        case Retry(_, delay, attempt):
            return Release(delay, {**(state or {}), "attempt": attempt})
        case Requeue(delay):
            return Release(delay, state)
        case Failed(Interrupted()):
            return Release(0.0, state)
        case Deferred(until, permit):
            kept = {**(state or {}), "permit": permit} if permit else state
            return Release(max(0.0, until - now), kept)
        case Crashed():
            return Release(0.0, {**(state or {}), "crashes": crashes(state) + 1})
        case Failed():
            return DeadLetter(describe(outcome), trace_of(outcome))
    kind = type(outcome).__name__.lower()
    return DeadLetter(f"{kind}: {describe(outcome)}")


def crashes(state: State | None) -> int:
    """Return how many child processes died in runs of this message."""
    return int(state.get("crashes", 0)) if state else 0
