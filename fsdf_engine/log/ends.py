"""What is told of a message that did not simply succeed: level, text, and where to look. Pure."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from ..contracts import Job
from ..outcomes import (
    DeadLetter,
    Expired,
    Failed,
    Filtered,
    Outcome,
    Retry,
    Revoked,
    TimedOut,
    describe,
    ended,
    frames_of,
    kind_of,
    text_of,
    trace_of,
)
from .record import masked_text, shown

__all__ = ["End", "end_of", "named", "on_one_line", "retry_of"]
_GONE = "it is gone, because of keep_failed=False"
LONGEST = 500  # characters of a reason
_LAST_FRAME = re.compile(r'.*File "([^"]+)", line (\d+)', re.DOTALL)


class End(NamedTuple):
    """One event. Of events with an equal `kind` only the first are told, by `message`; the others
    are counted as what `text` says. Both are made when they are needed: storms are fast."""

    level: int
    kind: Hashable
    message: Callable[[], str]
    text: Callable[[], str]
    error: BaseException | None = None  # to be shown with its traceback,
    trace: str = ""  # which is this text: the error itself is asked for none
    place: tuple[str, int] | None = None  # where it was raised


def retry_of(job: Job, outcome: Retry) -> End:
    """Return what is told of an attempt that another one follows."""
    kind, place = kind_of(outcome.error), _raised_at(outcome)

    def message() -> str:
        again = f"in {outcome.delay:,.1f} s" if outcome.delay else "at once"
        again += _changed(outcome.changes or {})
        limit = job.plan.policy.max_retries + 1
        return (
            f"{named(job)} failed in attempt {outcome.attempt} of {limit} and runs again {again}:"
            f" {on_one_line(describe(outcome))}{_at(place)}"
        )

    def text() -> str:
        return f"retries of task {_task(job)} after {kind[1]}{_at(place)}"

    event = "retry", job.plan.name, kind, place
    return End(logging.WARNING, event, message, text, place=place)


def _changed(changes: Mapping[str, Any]) -> str:
    """Say what another attempt does not have as this one had it, but for values of the user's."""
    place = f" on queue {on_one_line(text_of(changes['queue']))}" if "queue" in changes else ""
    others = ", ".join(on_one_line(key) for key in sorted(changes) if key != "queue")
    return place + (f" with other {others}" if others else "")


def end_of(job: Job, outcome: Outcome, look: str) -> End | None:
    """Return what is told of how a message ended; None where that is nothing special.

    `look` says how to see dead letters.
    """
    if isinstance(outcome, Failed):
        return _failed(job, outcome, look)
    name, verdict = type(outcome).__name__.lower(), job.verdict
    level = logging.ERROR
    if isinstance(verdict, DeadLetter):
        reason = verdict.reason

        def message() -> str:
            return f"{named(job)} is a dead letter: {on_one_line(reason)}; see {look}"
    elif isinstance(outcome, TimedOut):

        def message() -> str:
            return f"{named(job)} is given up: {describe(outcome)}; {_GONE}"
    elif isinstance(outcome, (Expired, Filtered, Revoked)):
        level = logging.INFO

        def message() -> str:
            return f"{named(job)} was not run: {_why(outcome)}"
    else:
        return None
    text = f"messages of task {_task(job)} that ended as {name}"
    return End(level, (name, job.plan.name), message, lambda: text)


def _why(outcome: Outcome) -> str:
    """Return the reason, but for keys that are made of arguments."""
    if isinstance(outcome, Filtered):
        return "an equal message has run before"
    return on_one_line(describe(outcome))


def _failed(job: Job, outcome: Failed, look: str) -> End:
    kind, place = kind_of(outcome.error), _raised_at(outcome)
    if not ended(outcome):
        return End(
            logging.WARNING,
            ("interrupted", job.plan.name),
            lambda: f"{named(job)} was interrupted, because its worker stops; it goes back",
            lambda: f"interrupted runs of task {_task(job)}",
        )
    rest = f"see {look}" if type(job.verdict) is DeadLetter else _GONE

    def message() -> str:
        attempts = "1 attempt" if not job.attempt else f"{job.attempt + 1} attempts"
        return (
            f"{named(job)} failed and is given up after {attempts}:"
            f" {on_one_line(describe(outcome))}{_at(place)}; {rest}"
        )

    def text() -> str:
        return f"failures of task {_task(job)} by {kind[1]}{_at(place)}"

    event = "failed", job.plan.name, kind, place
    return End(logging.ERROR, event, message, text, outcome.error, trace_of(outcome), place)


def named(job: Job) -> str:
    """Return how a message is called in logs."""
    return f"task {_task(job)} {on_one_line(job.id)}"


def _task(job: Job) -> str:
    return on_one_line(job.plan.name or job.plan.queue)


def _at(place: tuple[str, int] | None) -> str:
    return f" ({shown(place)})" if place else ""


def _raised_at(outcome: Failed | Retry) -> tuple[str, int] | None:
    """Return the innermost line of the traceback, in this process or in the one it comes from."""
    tb = frames_of(outcome.error)
    if tb is None:
        found = _LAST_FRAME.match(outcome.trace)
        return (found[1], int(found[2])) if found else None
    while tb.tb_next:
        tb = tb.tb_next
    return tb.tb_frame.f_code.co_filename, tb.tb_lineno


def on_one_line(text: str) -> str:
    """Return a text fit for a line: no passwords, no control characters, not too long."""
    if text.isascii() and text.isprintable() and "://" not in text and len(text) <= LONGEST:
        return text
    text = masked_text(" ".join(text_of(text).split()))
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
