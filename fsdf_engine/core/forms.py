"""Messages and their wire forms: opened, decoded, written again. What codecs do wrong ends here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..contracts import Again, Codec, Gate, Job, Outgoing
from ..errors import SoftTimeLimit
from ..limits import check_limits, limits_of
from ..message import derived_id, new_id, sends_of
from ..outcomes import Deadline, Interrupted, Invalid, Outcome, State, kind_of, text_of

__all__ = [
    "again", "decode", "judge", "limit", "open_envelope", "read", "replays", "unfit",
]  # fmt: skip
log = logging.getLogger("fsdf.forms")
FIRST = 1.0  # an instant long ago: what has been due is first in line
_COUNTED: Mapping[str, Any] = {"attempt": 0, "crashes": 0, "pushes": None}


def read(job: Job, queue: str, codecs: Sequence[Codec]) -> Invalid | None:
    """Open the envelope of a job's message; give it `id`, `published_at` and `attempt`, too.

    An outcome when one of them cannot be read; there is an id all the same.
    """
    misread, extra, delivery = open_envelope(job, codecs), job.extra, job.delivery
    if type(id := extra.get("task_id")) is not str or not id:
        id = str(id) if id else f"{queue}:{delivery.id}" if delivery.id else new_id()
    job.id = id
    at, attempt = extra.get("publish_time", delivery.published_at), extra.get("attempt", 0)
    if type(at) is not float or type(attempt) is not int:
        at, attempt = _numbers(at, attempt)
    if not (0 <= attempt < 1 << 31 and at - at == 0.0):  # finite: an age to judge
        job.published_at, job.attempt = delivery.published_at, 0
        told = extra.get("publish_time"), extra.get("attempt")
        return Invalid("extra.publish_time is {!r}, extra.attempt is {!r}".format(*told))
    job.published_at, job.attempt = at, attempt
    return misread


def _numbers(at: object, attempt: object) -> tuple[float, int]:
    """Return an instant and the count of attempts as numbers; a count below 0: they are none."""
    try:
        return float(at), int(attempt)  # type: ignore[arg-type, call-overload]
    except (TypeError, ValueError, OverflowError):
        return 0.0, -1


def open_envelope(job: Job, codecs: Sequence[Codec]) -> Invalid | None:
    """Give a job its `codec`, `extra` and `kept`, by the first codec that knows its message.

    An outcome when none knows it, or the one that does cannot read it; `extra` is empty then.
    """
    delivery = job.delivery
    try:
        for job.codec in codecs:
            if (found := job.codec.envelope(delivery.body, delivery.headers)) is not None:
                break
        else:
            return _unread(job, "no codec of this queue knows the message")
    except ValueError as error:
        return _unread(job, _reason(error))
    except BaseException as error:  # the fault of a plug-in, whatever it is
        return _unread(job, f"{_named(job.codec)} failed: {_reason(error)}")
    try:
        job.extra, job.kept = found
    except (TypeError, ValueError):
        job.extra = None  # type: ignore[assignment]
    if type(job.extra) is dict:
        return None
    return _unread(job, f"{_named(job.codec)} gave {text_of(found, repr)} as an envelope")


def _unread(job: Job, reason: str) -> Invalid:
    job.extra, job.kept = {}, None
    return Invalid(reason)


def limit(job: Job) -> Invalid | None:
    """Give a job claims if it has limits; an outcome when those of its message are none."""
    if "limits" in job.extra:
        try:
            check_limits(job.extra["limits"])
        except ValueError as error:
            return Invalid(text_of(error))
    job.claims = [None] if any(limits_of(job)) else None
    return None


def unfit(job: Job, error: BaseException) -> Outcome:
    """Return how a run ends whose arguments cannot be decoded: by user code, or by a codec."""
    if issubclass(type(error), (Deadline, Interrupted, SoftTimeLimit)):  # as in the function itself
        return job.plan.policy.outcome(error, job.attempt, job.plan.timeout)
    return Invalid(_reason(error))


def decode(job: Job, *, anew: bool = False) -> Outcome | None:
    """Decode the arguments of a job; an outcome when they do not fit.

    `anew`: from the message, because they have been decoded before, and perhaps changed.
    """
    if anew and (misread := open_envelope(job, (job.codec,))):
        return misread
    try:
        job.args, job.kwargs = job.codec.arguments(job)
    except BaseException as error:
        return unfit(job, error)
    return None


def judge(gate: Gate, jobs: Sequence[Job], now: float) -> Sequence[Outcome | None]:
    """Let a gate judge, with the arguments if it needs them; what does not fit is answered here."""
    if not getattr(gate, "needs_arguments", False):
        return gate.judge(jobs, now)
    misfits = [_shown(job) for job in jobs]
    answers = iter(gate.judge([job for job, no in zip(jobs, misfits) if no is None], now))
    return [next(answers) if misfit is None else misfit for misfit in misfits]


def _shown(job: Job) -> Outcome | None:
    """Decode for a gate; the run decodes for itself, and sees nothing that the gate changes."""
    extra, kept = job.extra, job.kept
    misfit = decode(job, anew=True)
    job.extra, job.kept = extra, kept
    return misfit


def again(
    job: Job, state: State | None = None, changes: State | None = None, delay: float = 0.0
) -> Outgoing:
    """Return the message of a job to be sent anew: `delay` seconds from now, or first in line.

    `state` is what a Release would carry. The task id stays; the message's own name is derived, so
    a repeat gives it again.

    Raises:
        Exception: of any class, by the codec; or what it gave is no message.
    """
    sends = sends_of(job.extra) + 1
    counts = {key: (state or {}).get(key, none) for key, none in _COUNTED.items()}
    counts |= {"task_id": job.id, "sends": sends}
    if clash := counts.keys() & (changes or {}).keys():
        raise ValueError(f"a retry cannot change {min(clash)!r}: the engine counts")
    outgoing = job.codec.again(job, {**(changes or {}), **counts})
    if type(outgoing) is not Outgoing or not (
        type(outgoing.body) is bytes and type(outgoing.queue) is str and outgoing.queue
    ):
        raise TypeError(f"{_named(job.codec)} gave {text_of(outgoing, repr)} as the message anew")
    if outgoing.priority not in range(-9, 10):
        raise ValueError(f"the priority {outgoing.priority!r} is no whole number from -9 to 9")
    outgoing.id, outgoing.delay = derived_id(job.id, sends, 0), delay
    outgoing.not_before = 0.0 if delay else FIRST
    return outgoing


def replays(codecs: Sequence[Codec]) -> Again:
    """Return what makes of a dead letter's body the one that is sent once more."""

    def replayed(body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        for codec in codecs:
            try:
                if codec.envelope(body, headers):
                    return codec.replayed(body)
            except ValueError:  # of its form, and unreadable: it dies again
                break
            except Exception:  # the others can still be replayed, and this one as it is
                log.exception("%s cannot replay a dead letter", _named(codec))
                break
        return body

    return replayed


def _named(codec: Codec) -> str:
    return f"the codec {type(codec).__name__}"


def _reason(error: BaseException) -> str:
    return f"{kind_of(error)[1]}: {text_of(error)}"
