"""How a job's end is told: its verdict, its effects, and the record that is kept of it. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from orjson import Fragment

from .. import codec, outcomes
from ..contracts import Effect, Job, Outgoing, Record, Sink, Told
from ..errors import ArgumentError, ConfigurationError
from ..message import count_of, sends_of
from ..outcomes import (
    ACK,
    DeadLetter,
    Failed,
    Outcome,
    Release,
    Retry,
    State,
    Succeeded,
    args_of,
    cut,
    kind_of,
    text_of,
)  # fmt: skip
from .forms import again
from .pushes import open_push
from .telling import effects_of, unasked

__all__ = ["POISON", "give_effects", "give_up", "give_verdict", "result_sink"]
MOST = 20  # arguments of an exception that are told
POISON = 5  # workers or children lost with a message before it is given up


def give_verdict(job: Job, now: float) -> None:
    """Set `job.verdict`; a message that keeps killing its workers becomes Lost.

    One that is acknowledged does so at once: rather lost than run twice.
    """
    job.outcome, state = unasked(job.outcome), _state(job)
    if type(job.outcome) is outcomes.Crashed and (job.acked or outcomes.crashes(state) >= POISON):
        job.outcome = outcomes.Lost(outcomes.crashes(state) + 1, job.outcome.exitcode)
    job.verdict = outcomes.verdict_for(job.outcome, now, state)
    if not job.plan.keep_failed and type(job.outcome) in (Failed, outcomes.TimedOut):
        job.verdict = ACK if type(job.verdict) is DeadLetter else job.verdict
    if job.delivery.lease is None:  # a lost worker has left it, and no body to keep
        job.verdict = ACK
    if type(job.verdict) is Release:
        _send_anew(job, job.verdict)


def _send_anew(job: Job, verdict: Release) -> None:
    """Publish what a release cannot give back: it is acknowledged, or not the same any more."""
    changes = job.outcome.changes if type(job.outcome) is Retry else None
    if not changes and not job.acked:
        return
    try:
        job.effects = [again(job, verdict.state, changes, verdict.delay)]
        job.verdict = ACK
    except BaseException as error:  # a codec's own, or a change that its form does not have
        why = f"the message cannot be sent anew: {text_of(error)}"
        job.outcome, job.verdict = unasked(Failed(ArgumentError(why))), DeadLetter(why)


def _state(job: Job) -> State | None:
    """What comes back with a message that is released: attempts made in place count, too."""
    state = job.delivery.state
    if (died := count_of(job.extra, "crashes")) and not outcomes.crashes(state):
        state = {**(state or {}), "crashes": died}
    if job.attempt and (not state or state.get("attempt") != job.attempt):
        state = {**(state or {}), "attempt": job.attempt}
    if type(job.outcome) is not Succeeded and (kept := open_push(job)):
        attempt = job.outcome.attempt if type(job.outcome) is Retry else job.attempt
        state = {**(state or {}), "pushes": [attempt, *kept]}
    return state


def give_effects(job: Job, now: float, valid_queue: Callable[[str], None]) -> None:
    """Set `job.effects`: as told by the run, else by the sinks, from the envelope alone."""
    made: Told | bytes | None = getattr(job, "told", None)
    job.told = None  # an error holds its frames, and they hold the job
    if type(made) is bytes and type(job.outcome) is Succeeded:
        return _give_effects_of_json(job, made, now)
    if type(made) is not Told or made.outcome is not job.outcome:  # who was ended may still tell
        made = _told_here(job)
    if made.outcome is not job.outcome:
        job.outcome, job.effects = made.outcome, ()
        give_verdict(job, now)
    if made.failure:
        job.verdict = DeadLetter(made.failure)
        job.effects = ()  # not anew as well
    job.effects = [*job.effects, *made.effects] if job.effects else made.effects
    try:
        for effect in made.effects:
            if type(effect) is Outgoing:
                valid_queue(effect.queue)
    except ConfigurationError as error:
        give_up(job, "an effect cannot be published", error)


def _give_effects_of_json(job: Job, value: bytes, now: float) -> None:
    try:
        job.effects = job.plan.sinks[0].of_json(job, value, now)  # type: ignore[attr-defined]
    except BaseException as error:
        job.verdict = DeadLetter(f"a sink failed: {text_of(error, repr)}")


def _told_here(job: Job) -> Told:
    try:
        return effects_of(job, job.outcome)
    except BaseException as error:  # not even what a run raises to end itself ends the outbox
        return Told(job.outcome, (), f"a sink failed: {text_of(error, repr)}")


def give_up(job: Job, why: str, error: Exception) -> None:
    """The job's effects cannot be stored: its message becomes a dead letter, its result says so."""
    why = f"{why}: {text_of(error, repr)}"
    job.outcome, job.verdict = unasked(Failed(ArgumentError(why))), DeadLetter(why)
    job.effects = [effect for effect in _told_here(job).effects if type(effect) is not Outgoing]


def result_sink(expires: float) -> Sink:
    """Return a sink that stores one record for every outcome that ends a message."""

    def sink(job: Job, outcome: Outcome) -> Sequence[Effect]:
        final = type(outcome) is Succeeded or outcomes.ended(outcome)
        if not final and type(outcome) is not Retry:
            return ()
        extra, name = job.extra, job.plan.queue
        reply, published = extra.get("reply"), extra.get("publish_time")
        # what tells the message from any other of its id: redelivered, retried or replayed it has
        # the same, and nobody can guess it who has not seen the message; a bare one claims no id
        try:
            origin = _digest(name, published, reply) if extra else _digest(name)
        except TypeError:  # one of them is a list or an object
            origin = _digest.__wrapped__(name, published, reply)
        reply = reply if type(reply) is str else ""
        lives = job.delivery.deliveries, final, expires, reply, sends_of(extra)
        told = _told(job.id, outcome, published, name, job.plan.name, job.attempt, time.time())
        return (Record(job.id, told, *lives, origin, job.attempt),)

    def of_json(job: Job, value: bytes, now: float) -> Sequence[Effect]:
        published, reply = job.extra.get("publish_time"), job.extra.get("reply")
        if type(published) is not float or not (reply is None or type(reply) is str):
            return sink(job, Succeeded(Fragment(value)))
        origin, facts = _alike(published, reply, job.plan.queue, job.plan.name, job.attempt, now)
        body = b'{"task_id":%b%b%b}' % (codec.dumps(job.id), facts, value)
        lives = job.delivery.deliveries, True, expires, reply or "", sends_of(job.extra)
        return (Record(job.id, body, *lives, origin, job.attempt),)

    setattr(sink, "of_json", of_json)  # noqa: B010  a function has no attributes for mypy
    return sink


@lru_cache(256, typed=True)  # messages that were pushed together have the same
def _digest(queue: str, *sent: object) -> str:
    from hashlib import blake2b  # slow to import, and only results need it

    text = ":".join([queue, *map(repr, sent)]).encode(errors="backslashreplace")
    return blake2b(text, digest_size=8).hexdigest()


@lru_cache(256)  # those that were pushed together end together, too
def _alike(published: float, reply: str | None, *of: Any) -> tuple[str, bytes]:
    """Return the origin of a success, and what is told of it between its id and its value."""
    told = _told("", Succeeded(Fragment(b"")), published, *of)
    return _digest(of[0], published, reply), told[len(b'{"task_id":""') : -1]


def _told(
    id: str, outcome: Outcome, published: object, queue: str, task: str, attempt: int, now: float
) -> bytes:
    """Return what a waiter learns."""
    told = {
        "task_id": id,  # these two first: waiters look for them there
        "publish_time": published if type(published) in (float, int) else None,
        "status": type(outcome).__name__.lower(),
        "queue": queue,
        "task": task,
        "attempt": attempt,
        "ended_at": int(now * 1e4) / 1e4,
    }
    if type(outcome) is Succeeded:
        value = outcome.value
        told["result"] = value if type(value) is Fragment else codec.plain(value)
    else:
        told.update(_why(outcome))
    return codec.dumps(told)


def _why(outcome: Outcome) -> Mapping[str, Any]:
    try:
        return _reasons(outcome)
    except (outcomes.Deadline, outcomes.Interrupted):  # meant for the run that this is part of
        raise
    except BaseException as error:  # of a user's class; that it ended is told in any case
        return {"reason": f"no reason can be told: {kind_of(error)[1]}"}


def _reasons(outcome: Outcome) -> Mapping[str, Any]:
    why: dict[str, Any] = {"reason": outcomes.describe(outcome)}
    if isinstance(outcome, (Failed, Retry)):
        module, name = kind_of(outcome.error)
        why["error"] = {"type": name, "module": module, "args": _arguments(outcome.error)}
        why["traceback"] = outcomes.trace_of(outcome)
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
