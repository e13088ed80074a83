"""One run of one message: compiled into one of two shapes with one meaning.

A plan without deadline or mid-run commit is a plain call in a clean context; a retry in place goes
on as the other shape: one generator, free of I/O and of waiting, that a sync and an async driver
execute.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple, TypeAlias

from ..contracts import Job, Plan
from ..message import decode
from ..outcomes import SUCCEEDED, Failed, Invalid, Outcome, Retry, Succeeded, text_of
from .context import current_job, is_forked
from .pushes import next_attempt
from .retry import IN_PLACE

__all__ = ["Watch", "compile_plan", "is_coroutine"]


class Call(NamedTuple):
    """Step: call the user's function. The driver decides how (call or await)."""

    job: Job


class Sleep(NamedTuple):
    """Step: go on after so many seconds."""

    seconds: float


class Acknowledge(NamedTuple):
    """Step: go on when the message is acknowledged."""

    job: Job


Step: TypeAlias = Call | Sleep | Acknowledge
Steps: TypeAlias = Generator[Step, Any, Outcome]
Watch: TypeAlias = Callable[[Job], None]
_UNSTARTED = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def steps(job: Job, outcome: Outcome | None = None) -> Steps:
    """The whole of a run; `outcome` is that of a first attempt already made."""
    plan = job.plan
    if plan.early and not job.acked:
        yield Acknowledge(job)
    while True:
        if outcome is None:
            try:
                value = yield Call(job)
                return SUCCEEDED if value is None else _succeeded(value)
            except BaseException as error:
                outcome = plan.policy.outcome(error, job.attempt, plan.timeout)
        if type(outcome) is not Retry or outcome.delay > IN_PLACE or job.claims == []:
            return outcome  # without a claim its deadline has told how it ended
        if is_forked(job):
            return outcome
        if plan.report:
            plan.report.retried(job, outcome)
        next_attempt(job, outcome.attempt)  # before the wait: the deadline was the attempt's
        if outcome.delay:
            yield Sleep(outcome.delay)
        outcome = _bind_again(job)


def _bind_again(job: Job) -> Outcome | None:
    """Give the next attempt what was pushed: the one before may have changed its arguments."""
    try:
        job.data, job.extra = decode(job.delivery.body)
        job.args, job.kwargs = job.plan.bind(job.data, job.extra.get("args", ()))
    except Exception as error:  # what bound once; only a conversion of the user's can raise here
        return Invalid(f"{type(error).__name__}: {text_of(error)}")
    return None


def _succeeded(value: Any) -> Outcome:
    """A coroutine that nobody awaits, or a generator that nobody goes through, is no success."""
    if type(value) not in _UNSTARTED:
        return Succeeded(value)
    if type(value) is not CoroutineType:
        return Failed(TypeError("the task returned a generator, which nobody goes through"))
    value.close()
    return Failed(TypeError("the task returned a coroutine; declare it with `async def`"))


def drive(run: Steps, perform: Callable[[Step], Any]) -> Outcome:
    """Drive a run to its outcome in the calling thread or greenlet. Blocks."""
    resume: Callable[[Any], Step] = run.send
    value: Any = None
    while True:
        try:
            step = resume(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        resume = run.send
        try:
            value = perform(step)
        except BaseException as error:
            resume, value = run.throw, _raisable(error)


async def adrive(run: Steps, perform: Callable[[Step], Awaitable[Any]]) -> Outcome:
    """Drive a run to its outcome in the running loop: `drive` with one `await`."""
    resume: Callable[[Any], Step] = run.send
    value: Any = None
    while True:
        try:
            step = resume(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        resume = run.send
        try:
            value = await perform(step)
        except BaseException as error:
            resume, value = run.throw, _raisable(error)


def _raisable(error: BaseException) -> BaseException:
    """A generator turns StopIteration into its own end, so user code's travels wrapped."""
    if isinstance(error, (StopIteration, GeneratorExit)):
        wrapped = RuntimeError(f"the task raised {type(error).__name__}")
        wrapped.__cause__ = error
        return wrapped
    return error


def is_coroutine(fn: Callable[..., Any]) -> bool:
    """Say whether calling `fn` gives a coroutine; looks through partials and callables."""
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004
    )


def compile_plan(plan: Plan, fn: Callable[..., Any], watch: Watch | None = None) -> Plan:
    """Decide once what a run of the task needs: what is off costs nothing.

    `watch(job)` is called at the start of each attempt of a task with a timeout.
    """
    forced = bool(os.environ.get("FSDF_FORCE_GENERATOR"))
    watch = watch if plan.timeout > 0 else None
    whole = forced or plan.early or watch is not None
    if is_coroutine(fn):
        return plan._replace(arun=_aruns(plan, fn, watch, whole))
    return plan._replace(run=_runs(plan, fn, watch, whole))


def _runs(
    plan: Plan, fn: Callable[..., Any], watch: Watch | None, whole: bool
) -> Callable[[Job], Outcome]:
    policy, timeout = plan.policy, plan.timeout

    def perform(step: Step) -> Any:
        match step:
            case Call(job):
                if watch:
                    watch(job)
                return fn(*job.args, **job.kwargs)
            case Sleep(seconds):
                return threading.Event().wait(seconds)
            case Acknowledge(job):
                return job.owner.commit(job, (), ack=True)

    def call(job: Job) -> Outcome:
        current_job.set(job)
        if whole:
            return drive(steps(job), perform)
        try:
            value = fn(*job.args, **job.kwargs)
        except BaseException as error:
            outcome = policy.outcome(error, job.attempt, timeout)
        else:
            return SUCCEEDED if value is None else _succeeded(value)
        return drive(steps(job, outcome), perform)  # outside: no context for later errors

    return lambda job: Context().run(call, job)


def _aruns(
    plan: Plan, fn: Callable[..., Any], watch: Watch | None, whole: bool
) -> Callable[[Job], Coroutine[Any, Any, Outcome]]:
    import asyncio

    policy, timeout = plan.policy, plan.timeout

    async def perform(step: Step) -> Any:
        match step:
            case Call(job):
                if watch:
                    watch(job)
                return await fn(*job.args, **job.kwargs)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Acknowledge(job):
                return await job.owner.acommit(job, (), ack=True)

    async def acall(job: Job) -> Outcome:  # its task has a clean context already
        current_job.set(job)
        if whole:
            return await adrive(steps(job), perform)
        try:
            value = await fn(*job.args, **job.kwargs)
        except BaseException as error:
            outcome = policy.outcome(error, job.attempt, timeout)
        else:
            return SUCCEEDED if value is None else _succeeded(value)
        return await adrive(steps(job, outcome), perform)

    return acall
