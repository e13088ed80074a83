"""One run of one message: compiled into one of two shapes with one meaning.

A job without limits is a plain call, of the function or of its plan's runner, in a clean context;
a retry in place goes on as the other shape: one generator, free of I/O and of waiting, that a sync
and an async driver execute.
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

from ..contracts import Job, Plan, Told
from ..errors import SoftTimeLimit
from ..outcomes import SUCCEEDED, Failed, Outcome, Retry, Succeeded, kind_of, text_of, unfit_outcome
from .context import current_job, is_forked
from .forms import decode, unfit
from .pushes import next_attempt
from .retry import IN_PLACE
from .telling import tell

__all__ = ["Watch", "compile_plan", "is_coroutine"]


class Call(NamedTuple):
    """Step: call the user's function, or the runner. The driver decides how (call or await)."""

    job: Job


class Sleep(NamedTuple):
    """Step: go on after so many seconds."""

    seconds: float


Step: TypeAlias = Call | Sleep
End: TypeAlias = Outcome | Told | bytes  # how an attempt ended; bytes: see `Runner`
Steps: TypeAlias = Generator[Step, Any, End]
Watch: TypeAlias = Callable[[Job], None]
_UNSTARTED = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def steps(job: Job, watch: Watch | None, outcome: End | None = None) -> Steps:
    """The whole of a run; `outcome` is that of a first attempt already made."""
    plan, anew = job.plan, False
    while True:
        if outcome is None:
            if watch and job.claims:
                watch(job)
            if misfit := decode(job, anew=anew):
                return misfit
            try:
                value = yield Call(job)
                outcome = _led(job, value) if plan.runner else _returned(value)
            except BaseException as error:
                outcome = _raised(job, error)
        if type(outcome) is not Retry or outcome.delay > IN_PLACE or outcome.changes:
            return outcome
        if job.claims == [] or is_forked(job):  # a deadline has told how it ended
            return outcome
        if plan.report:
            plan.report.retried(job, outcome)
        if plan.emit:
            plan.emit("run_retried", inside=True, job=job, outcome=outcome)
        next_attempt(job, outcome.attempt)  # before the wait: the deadline was the attempt's
        if outcome.delay:
            yield Sleep(outcome.delay)
        outcome, anew = None, True  # the attempt before may have changed its arguments


def _returned(value: Any) -> Outcome:
    """Return the outcome of a run that returned.

    A coroutine that nobody awaits, or a generator that nobody goes through, is no success.
    """
    if value is None:
        return SUCCEEDED
    if type(value) not in _UNSTARTED:
        return Succeeded(value)
    if type(value) is not CoroutineType:
        return Failed(TypeError("the task returned a generator, which nobody goes through"))
    value.close()
    return Failed(TypeError("the task returned a coroutine; declare it with `async def`"))


def _led(job: Job, outcome: Any) -> End:
    """Return how a run ended by its runner's word, where that is an outcome."""
    if type(outcome) is bytes:
        return outcome
    if type(outcome) is Succeeded:
        return _returned(outcome.value)
    if type(outcome) is Told and type(outcome.outcome) is Succeeded:
        return outcome
    if why := unfit_outcome(outcome, job.attempt):
        return Failed(TypeError(f"the runner returned {text_of(outcome, repr)}: {why}"))
    return outcome  # type: ignore[no-any-return]


def _raised(job: Job, error: BaseException) -> Outcome:
    """Return how an attempt ends that raised. A runner was to return, but for what is raised in it
    from outside."""
    kind, plan = type(error), job.plan
    if plan.runner is None or not issubclass(kind, Exception) or issubclass(kind, SoftTimeLimit):
        return plan.policy.outcome(error, job.attempt, plan.timeout)
    failure = RuntimeError(f"the runner failed: {kind_of(error)[1]}: {text_of(error)}")
    failure.__cause__ = error
    return Failed(failure)


def drive(run: Steps, perform: Callable[[Step], Any]) -> End:
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


async def adrive(run: Steps, perform: Callable[[Step], Awaitable[Any]]) -> End:
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

    `watch(job)` is called at the start of each attempt of a job that has claims.
    """
    whole = bool(os.environ.get("FSDF_FORCE_GENERATOR"))
    if is_coroutine(fn):
        return plan._replace(arun=_aruns(plan, fn, watch, whole))
    return plan._replace(run=_runs(plan, fn, watch, whole))


def _runs(
    plan: Plan, fn: Callable[..., Any], watch: Watch | None, whole: bool
) -> Callable[[Job], Outcome]:
    runner = plan.runner
    quiet = None if plan.sinks else Succeeded  # of such an outcome nothing is to be told

    def perform(step: Step) -> Any:
        if isinstance(step, Sleep):
            return threading.Event().wait(step.seconds)
        return runner(step.job, fn) if runner else fn(*step.job.args, **step.job.kwargs)

    def call(job: Job) -> Outcome:
        current_job.set(job)
        first: End | None = None
        if not (whole or job.claims):
            try:
                job.args, job.kwargs = job.codec.arguments(job)
            except BaseException as error:
                return tell(job, unfit(job, error))
            try:
                if runner is None:
                    outcome: End = _returned(fn(*job.args, **job.kwargs))
                else:
                    outcome = _led(job, runner(job, fn))
            except BaseException as error:
                first = _raised(job, error)
            else:
                if type(outcome) is not Retry:
                    return outcome if type(outcome) is quiet else tell(job, outcome)
                first = outcome
        outcome = drive(steps(job, watch, first), perform)  # outside: no context for later errors
        return outcome if type(outcome) is quiet else tell(job, outcome)

    return lambda job: Context().run(call, job)


def _aruns(
    plan: Plan, fn: Callable[..., Any], watch: Watch | None, whole: bool
) -> Callable[[Job], Coroutine[Any, Any, Outcome]]:
    import asyncio

    runner = plan.runner
    quiet = None if plan.sinks else Succeeded  # of such an outcome nothing is to be told

    async def perform(step: Step) -> Any:
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        return await (runner(step.job, fn) if runner else fn(*step.job.args, **step.job.kwargs))

    async def acall(job: Job) -> Outcome:  # its task has a clean context already
        current_job.set(job)
        first: End | None = None
        if not (whole or job.claims):
            try:
                job.args, job.kwargs = job.codec.arguments(job)
            except BaseException as error:
                return tell(job, unfit(job, error))
            try:
                if runner is None:
                    outcome: End = _returned(await fn(*job.args, **job.kwargs))
                else:
                    outcome = _led(job, await runner(job, fn))
            except BaseException as error:
                first = _raised(job, error)
            else:
                if type(outcome) is not Retry:
                    return outcome if type(outcome) is quiet else tell(job, outcome)
                first = outcome
        outcome = await adrive(steps(job, watch, first), perform)
        return outcome if type(outcome) is quiet else tell(job, outcome)

    return acall
