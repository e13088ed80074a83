"""How a job's end is told: its verdict, its effects, and what is written about it. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import codec, outcomes
from ..contracts import Effect, Job, Outgoing, Record, Sink
from ..errors import ArgumentError
from ..message import decode, encode
from ..outcomes import ACK, DeadLetter, Failed, Outcome, Retry, State, Succeeded, text_of

__all__ = ["POISON", "give_effects", "give_verdict", "result_sink"]
POISON = 5  # workers or children lost with a message before it is given up


def give_verdict(job: Job, now: float) -> None:
    """Set `job.verdict`; a message that keeps killing its workers becomes Lost."""
    state = _state(job)
    if type(job.outcome) is outcomes.Crashed and outcomes.crashes(state) >= POISON:
        job.outcome = outcomes.Lost(outcomes.crashes(state) + 1)
    try:
        job.verdict = outcomes.verdict_for(job.outcome, now, state)
        if not job.plan.keep_failed and type(job.outcome) in (Failed, outcomes.TimedOut):
            job.verdict = ACK if type(job.verdict) is DeadLetter else job.verdict
    except Exception as error:  # a user's exception whose str() fails
        job.verdict = DeadLetter(f"{type(job.outcome).__name__}: {type(error).__name__}")


def _state(job: Job) -> State | None:
    """What comes back with a message that is released: attempts made in place count, too."""
    state = job.delivery.state
    if job.attempt and (not state or state.get("attempt") != job.attempt):
        return {**(state or {}), "attempt": job.attempt}
    return state


def give_effects(job: Job, now: float) -> None:
    """Set `job.effects`; a value without a JSON form makes the run a failed one."""
    try:
        job.effects = _effects(job)
    except BaseException as error:  # of a user's class, or a sink's own
        if type(job.outcome) is Succeeded:
            job.outcome = Failed(ArgumentError(f"the result cannot be stored: {text_of(error)}"))
            give_verdict(job, now)
        try:
            job.effects = _effects(job)
        except BaseException as again:
            job.effects, job.verdict = (), DeadLetter(f"a sink failed: {text_of(again, repr)}")


def _effects(job: Job) -> Sequence[Effect]:
    effects = [e for sink in job.plan.sinks for e in sink(job, job.outcome)]
    return [*effects, *_again(job)] if job.acked else effects


def _again(job: Job) -> Sequence[Effect]:
    """A message that was acknowledged before its run goes back as a new one."""
    verdict, back = job.verdict, type(job.outcome) in (Retry, outcomes.Requeue)
    if not back or not isinstance(verdict, outcomes.Release):
        return ()
    data, extra = decode(job.delivery.body)
    attempt = (verdict.state or {}).get("attempt", 0)
    control: dict[str, Any] = {**extra, "task_id": job.id, "attempt": attempt}
    if not control.get("args"):
        control.pop("args", None)
    body = encode(data, control)
    return [Outgoing(job.plan.queue, job.id, body, None, verdict.delay, 0.0, job.plan.priority)]


def result_sink(expires: float) -> Sink:
    """Return a sink that stores one record for every outcome that ends a message."""

    def sink(job: Job, outcome: Outcome) -> Sequence[Effect]:
        final = outcomes.ended(outcome)
        if not final and type(outcome) is not Retry:
            return ()
        body = codec.dumps(_told(job, outcome))
        reply = job.extra.get("reply", "")
        reply = reply if type(reply) is str else ""
        return [Record(job.id, body, job.delivery.deliveries, final, expires, reply)]

    return sink


def _told(job: Job, outcome: Outcome) -> Mapping[str, Any]:
    """What a waiter learns. `status` is the outcome's name in lower case."""
    told: dict[str, Any] = {
        "task_id": job.id,
        "status": type(outcome).__name__.lower(),
        "queue": job.plan.queue,
        "task": job.plan.name,
        "attempt": job.attempt,
        "ended_at": round(time.time(), 4),
    }
    if type(outcome) is Succeeded:
        told["result"] = codec.plain(outcome.value)
        return told
    told["reason"] = outcomes.describe(outcome)
    if isinstance(outcome, (Failed, Retry)):
        error = outcome.error
        told["error"] = {
            "type": type(error).__name__,
            "module": type(error).__module__,
            "args": [_argument(a) for a in error.args],
        }
        told["traceback"] = outcomes.trace_of(outcome if type(outcome) is Failed else Failed(error))
    return told


def _argument(value: Any) -> Any:
    """Return an exception's argument as it is, where JSON has it; else its text."""
    if isinstance(value, (str, int, float)):
        try:
            return codec.loads(codec.dumps(codec.plain(value)))
        except (TypeError, ValueError):
            pass
    return text_of(value, repr)
