"""How a job's end is told: its verdict and its effects. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import outcomes
from ..contracts import Job, Outgoing, Sink, Told
from ..errors import ArgumentError, ConfigurationError
from ..message import count_of
from ..outcomes import ACK, DeadLetter, Failed, Release, Retry, Succeeded, text_of
from .forms import again
from .pushes import open_push
from .telling import effects_of, unasked

__all__ = ["POISON", "give_ends", "give_up", "give_verdict"]
POISON = 5  # workers or children lost with a message before it is given up


def give_ends(jobs: Sequence[Job], now: float, valid_queue: Callable[[str], None]) -> int:
    """Set the verdict and the effects of jobs that have ended; return how many they are."""
    by_json: list[Job] = []
    for job in jobs:
        job.tries, job.effects = 0, ()
        if type(job.outcome) is Succeeded:
            job.verdict = ACK
            if type(told := getattr(job, "told", None)) is bytes:
                if told and job.plan.sinks:
                    by_json.append(job)
                continue
        else:
            give_verdict(job, now)
        if job.plan.sinks:
            _give_effects(job, now, valid_queue)
    if by_json:
        _give_effects_of_json(by_json, now)
    return len(jobs)


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


def _state(job: Job) -> outcomes.State | None:
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


def _give_effects(job: Job, now: float, valid_queue: Callable[[str], None]) -> None:
    """Set `job.effects`: as told by the run, else by the sinks, from the envelope alone."""
    made: Told | bytes | None = getattr(job, "told", None)
    job.told = None  # an error holds its frames, and they hold the job
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


def _give_effects_of_json(jobs: Sequence[Job], now: float) -> None:
    """As `_give_effects`, of successes of which the JSON of the value was told."""
    by_sink: dict[Sink, list[Job]] = {}
    for job in jobs:
        by_sink.setdefault(job.plan.sinks[0], []).append(job)
    for sink, some in by_sink.items():
        try:
            made = sink.of_json(some, now)  # type: ignore[attr-defined]
            for job, job.effects in zip(some, made, strict=True):
                job.told = None
        except BaseException as error:
            if len(some) > 1:  # one is at fault
                for job in some:
                    _give_effects_of_json([job], now)
            else:
                some[0].verdict = DeadLetter(f"cannot store: {text_of(error, repr)}")


def _told_here(job: Job) -> Told:
    try:
        return effects_of(job, job.outcome)
    except BaseException as error:  # not even what a run raises to end itself ends the outbox
        return Told(job.outcome, (), f"cannot store: {text_of(error, repr)}")


def give_up(job: Job, why: str, error: Exception) -> None:
    """The job's effects cannot be stored: its message becomes a dead letter, its result says so."""
    why = f"{why}: {text_of(error, repr)}"
    job.outcome, job.verdict = unasked(Failed(ArgumentError(why))), DeadLetter(why)
    job.effects = [effect for effect in _told_here(job).effects if type(effect) is not Outgoing]
