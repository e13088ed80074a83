"""Runs the messages of a task by its tracer, and tells the engine how they ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module
from types import CoroutineType
from typing import Any

from fsdf_engine.contracts import Effect, Job, Outgoing, Runner, Told, outcomes

from .._state import _enter_run
from ..states import IGNORED, REJECTED, RETRY
from .codec import counted
from .observed import observed
from .requests import Requests
from .run import Run, current_run

__all__ = ["effects_of_run", "runner_of"]
RELEASED = 1.0  # seconds; an unchanged retry that waits longer goes back as it is
Tracer = Callable[..., Any]
_CONTINUED = outcomes.Continued()


def runner_of(app: Any, name: str, requests: Requests, awaits: bool) -> Runner:
    """Return what runs the messages of a task in place of the engine.

    The tracer is made at the first run in each process, by what `app.trace` has then.
    """
    tracers: list[Tracer] = []

    def tracer() -> Tracer:
        if not tracers:
            trace = import_module("..app.trace", __package__)
            made = trace.build_tracer(name, app.tasks[name], app.loader, requests.node, app=app)
            tracers.append(observed(made, app, app.tasks[name], requests))
        return tracers[0]

    def run(job: Job, fn: Any) -> outcomes.Outcome | Told | bytes:
        run = job.kept = Run(job)
        current_run.set(run)
        _enter_run()
        trace = tracers[0] if tracers else tracer()
        try:
            told = trace(job.id, job.args, job.kwargs, requests.of(job))
            if type(told) is CoroutineType:  # of a pool that awaits nothing
                told = import_module("..app._trace.awaiting", __package__).complete(told)
        except BaseException as error:
            return _raised(run, error)
        return _ended(run, told[1])

    async def arun(job: Job, fn: Any) -> outcomes.Outcome | Told | bytes:
        run = job.kept = Run(job, on_loop=True)
        current_run.set(run)
        _enter_run()
        try:
            info = (await tracer()(job.id, job.args, job.kwargs, requests.of(job)))[1]
        except BaseException as error:
            return _raised(run, error)
        return _ended(run, info)

    return arun if awaits else run


def _ended(run: Run, info: Any) -> outcomes.Outcome | Told | bytes:
    """Return the outcome of what a tracer says; what a task has raised is told by its effects."""
    run.has_ended = True
    outcome: outcomes.Outcome = outcomes.SUCCEEDED
    if run.again:
        _send_caught(run, info)
    if info is not None:
        if info.state == RETRY:
            outcome = _retried(run, info.retval)
        elif info.state == REJECTED:
            outcome = _rejected(run, info.retval)
        elif info.state == IGNORED:  # perhaps for what replaces it
            outcome = _CONTINUED
    if outcome is not outcomes.SUCCEEDED:
        return outcome
    run.job.kept = None  # else each would hold the other, until the collector finds them
    return Told(outcome, run.effects) if run.effects else run.told


def _send_caught(run: Run, info: Any) -> None:
    """Send the messages of retries whose exception the task has caught: it asked for them."""
    told = None if info is None else info.retval
    caught = [error for error in run.again if error is not told]
    run.effects += [_anew(message, run.job) for error in caught for message in error.outgoings]


def _raised(run: Run, error: BaseException) -> outcomes.Outcome:
    """Return the outcome of what a tracer raises: of hooks, or meant to end the process."""
    if isinstance(error, (outcomes.Deadline, outcomes.Interrupted)):
        raise error
    if isinstance(error, Exception) and hasattr(error, "requeue"):
        run.has_ended = True
        return _rejected(run, error)
    return outcomes.Failed(error)


def _rejected(run: Run, error: Any) -> outcomes.Outcome:
    """Return the outcome of a message that its task has rejected: to the back of its line, or dead.

    What is acknowledged already is nobody's to reject.
    """
    job = run.job
    if job.plan.early:
        return _CONTINUED
    if not error.requeue:
        return outcomes.Rejected(outcomes.text_of(error.reason or "rejected by the task"))
    message = Outgoing(job.plan.queue, job.id, job.delivery.body, job.delivery.headers)
    message.priority = job.delivery.priority
    run.effects.append(_anew(message, job, redelivered=True, attempt=job.attempt))
    return _CONTINUED


def _retried(run: Run, error: Any) -> outcomes.Outcome:
    """Return the outcome of a run that wants another one.

    Its message, which `error.outgoings` holds, leaves with the end of the run. Where nothing but
    its time has `changed`, and that is far, it need not be sent: the one at hand goes back.
    """
    job = run.job
    for message in getattr(error, "outgoings", ()):
        if not (job.plan.early or error.changed) and message.delay > RELEASED:
            cause = error.exc if isinstance(error.exc, BaseException) else error
            return outcomes.Retry(cause, message.delay, job.attempt + 1)
        run.effects.append(_anew(message, job))
    return _CONTINUED


def _anew(message: Outgoing, job: Job, **control: Any) -> Outgoing:
    """Return a message that takes the place of a job's: a life more, under a name of its own."""
    sends = job.extra.get("sends")
    sends = sends + 1 if type(sends) is int else 1
    name = f"{job.id}:{sends}:{job.attempt}".encode()
    message.id = hashlib.blake2b(name, digest_size=16).hexdigest()
    reply = job.extra.get("reply")
    changes = {"task_id": job.id, "sends": sends, "reply": reply, **control}
    message.body = counted(message.body, changes)
    return message


def effects_of_run(job: Job, outcome: outcomes.Outcome) -> list[Effect] | None:
    """Return what a run has left to be stored; None of what has not ended by its own word."""
    run = job.kept
    if type(run) is Run and run.has_ended and type(outcome) in _BY_RUNS:
        return run.effects
    return [] if type(outcome) in _UNTOLD else None


_BY_RUNS = frozenset({
    outcomes.Succeeded, outcomes.Retry, outcomes.Rejected, outcomes.Continued,
})  # fmt: skip
_UNTOLD = frozenset({
    outcomes.Succeeded, outcomes.Retry, outcomes.Requeue, outcomes.Deferred, outcomes.Crashed,
})  # fmt: skip
