"""How a job's end is told: its verdict, its effects, and what is written about it. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import codec, outcomes
from ..contracts import Effect, Job, Outgoing, Record, Sink
from ..errors import ArgumentError
from ..message import decode, encode, sends_of
from ..outcomes import (
    ACK,
    DeadLetter,
    Failed,
    Outcome,
    Retry,
    State,
    Succeeded,
    args_of,
    cut,
    kind_of,
    text_of,
)  # fmt: skip
from .pushes import open_push

__all__ = ["POISON", "give_effects", "give_up", "give_verdict", "result_sink"]
MOST = 20  # arguments of an exception that are told
POISON = 5  # workers or children lost with a message before it is given up


def give_verdict(job: Job, now: float) -> None:
    """Set `job.verdict`; a message that keeps killing its workers becomes Lost."""
    state = _state(job)
    if type(job.outcome) is outcomes.Crashed and outcomes.crashes(state) >= POISON:
        job.outcome = outcomes.Lost(outcomes.crashes(state) + 1, job.outcome.exitcode)
    try:
        job.verdict = outcomes.verdict_for(job.outcome, now, state)
        if not job.plan.keep_failed and type(job.outcome) in (Failed, outcomes.TimedOut):
            job.verdict = ACK if type(job.verdict) is DeadLetter else job.verdict
    except Exception as error:  # a user's exception whose str() fails
        job.verdict = DeadLetter(f"{type(job.outcome).__name__}: {kind_of(error)[1]}")


def _state(job: Job) -> State | None:
    """What comes back with a message that is released: attempts made in place count, too."""
    state = job.delivery.state
    if job.attempt and (not state or state.get("attempt") != job.attempt):
        state = {**(state or {}), "attempt": job.attempt}
    if type(job.outcome) is not Succeeded and (kept := open_push(job)):
        attempt = job.outcome.attempt if type(job.outcome) is Retry else job.attempt
        state = {**(state or {}), "pushes": [attempt, *kept]}
    return state


def give_effects(job: Job, now: float) -> None:
    """Set `job.effects`; a value without a JSON form makes the run a failed one.

    A sink that fails makes a dead letter, and keeps no other from telling how the run ended.
    """
    effects, error = _effects(job)
    if error is not None and type(job.outcome) is Succeeded:
        job.outcome = Failed(ArgumentError(f"the result cannot be stored: {text_of(error)}"))
        give_verdict(job, now)
        effects, error = _effects(job)
    if error is not None:
        job.verdict = DeadLetter(f"a sink failed: {text_of(error, repr)}")
    job.effects = effects


def give_up(job: Job, why: str, error: Exception) -> None:
    """The job's effects cannot be stored: its message becomes a dead letter, its result says so."""
    told = f"{why}: {text_of(error, repr)}"
    job.outcome, job.verdict = Failed(ArgumentError(told)), DeadLetter(told)
    job.effects = [effect for effect in _effects(job)[0] if type(effect) is Record]


def _effects(job: Job) -> tuple[Sequence[Effect], BaseException | None]:
    """Return what the sinks make of the outcome, and the error of one that failed."""
    effects: list[Effect] = []
    failure: BaseException | None = None
    for sink in (*job.plan.sinks, _again) if job.acked else job.plan.sinks:
        try:
            effects += sink(job, job.outcome)
        except BaseException as error:  # of a user's class, or a sink's own
            failure = error
    return effects, failure


def _again(job: Job, outcome: Outcome) -> Sequence[Effect]:
    """A message that was acknowledged before its run goes back as a new one."""
    verdict, back = job.verdict, type(outcome) in (Retry, outcomes.Requeue)
    if not back or not isinstance(verdict, outcomes.Release):
        return ()
    data, extra = decode(job.delivery.body)
    state = verdict.state or {}
    control: dict[str, Any] = {**extra, "task_id": job.id, "attempt": state.get("attempt", 0)}
    if "pushes" in state:
        control["pushes"] = state["pushes"]
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
        lives = job.delivery.deliveries, final, expires, reply, sends_of(job.extra)
        return [Record(job.id, body, *lives, _origin(job))]

    return sink


def _origin(job: Job) -> str:
    """Return what tells the message from any other of its id: redelivered, retried or replayed it
    has the same, and nobody can guess it who has not seen the message."""
    import hashlib  # slow to import, and only results need it

    name, extra = job.plan.queue, job.extra
    if extra:  # a bare message cannot claim an id
        name = f"{name}:{extra.get('publish_time')!r}:{extra.get('reply')!r}"
    digest = hashlib.blake2b(name.encode(errors="backslashreplace"), digest_size=8)
    return digest.hexdigest()


def _told(job: Job, outcome: Outcome) -> Mapping[str, Any]:
    """What a waiter learns. `status` is the outcome's name in lower case."""
    published = job.extra.get("publish_time")
    told: dict[str, Any] = {
        "task_id": job.id,  # these two first: waiters look for them there
        "publish_time": published if type(published) in (float, int) else None,
        "status": type(outcome).__name__.lower(),
        "queue": job.plan.queue,
        "task": job.plan.name,
        "attempt": job.attempt,
        "ended_at": round(time.time(), 4),
    }
    if type(outcome) is Succeeded:
        told["result"] = codec.plain(outcome.value)
        return told
    try:
        told.update(_why(outcome))
    except BaseException as error:  # of a user's class; that it ended is told in any case
        told["reason"] = f"no reason can be told: {kind_of(error)[1]}"
    return told


def _why(outcome: Outcome) -> Mapping[str, Any]:
    why: dict[str, Any] = {"reason": outcomes.describe(outcome)}
    if isinstance(outcome, (Failed, Retry)):
        module, name = kind_of(outcome.error)
        why["error"] = {"type": name, "module": module, "args": _arguments(outcome.error)}
        failed = outcome if type(outcome) is Failed else Failed(outcome.error)
        why["traceback"] = outcomes.trace_of(failed)
    return why


def _arguments(error: BaseException) -> list[Any] | None:
    """Return what an exception was made with, None where that is a lot."""
    args = args_of(error)
    return [_argument(value) for value in args] if len(args) <= MOST else None


def _argument(value: Any) -> Any:
    """Return an exception's argument as it is, where JSON has it; else its text."""
    try:
        if isinstance(value, (str, int, float)):
            plain = codec.loads(codec.dumps(codec.plain(value)))
            return cut(plain, outcomes.REASON) if type(plain) is str else plain
    except Exception:  # no form of it is JSON
        pass
    return text_of(value, repr)
