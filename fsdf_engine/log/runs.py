"""Runs that are measured, or told of at DEBUG; and who tells it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from ..contracts import Job, Plan
from ..outcomes import Outcome, text_of
from .ends import named, on_one_line

__all__ = ["facts_of", "measured", "tell", "tell_raised", "traced"]
log = logging.getLogger("fsdf.log")
Run: TypeAlias = Callable[[Job], Outcome]
AsyncRun: TypeAlias = Callable[[Job], Coroutine[Any, Any, Outcome]]


def tell(logger: logging.Logger, level: int, text: str, *facts: object, **more: Any) -> None:
    """Log. A user's filter or handler that fails harms neither a run nor the consumer."""
    _do(partial(logger.log, level, text, *facts, **more))


def tell_raised(
    logger: logging.Logger, level: int, text: str, raised: Any, trace: str, facts: dict[str, Any]
) -> None:
    """Log an error with the text that its traceback has already: no formatter makes it again."""
    path, line, name, _ = logger.findCaller()
    of = logger.name, level, path, line, "%s", (text,), raised, name, facts
    record = logger.makeRecord(*of)
    record.exc_text = trace.rstrip("\n")
    _do(partial(logger.handle, record))


def _do(handle: Callable[[], object]) -> None:
    try:
        handle()
    except Exception as error:
        with suppress(Exception):
            log.error("a log record cannot be handled: %s", text_of(error, repr))


def facts_of(job: Job, **more: Any) -> dict[str, Any]:
    """Return what the record of a message has as `extra`: the fields of `RunContext`, and more."""
    plan = job.plan
    run = {"queue": plan.queue, "task": on_one_line(plan.name or plan.queue)}
    return {**run, "task_id": on_one_line(job.id), "attempt": job.attempt, **more}


def measured(plan: Plan, took: Callable[[float], None]) -> Plan:
    """Return the plan with the seconds of each run given to `took`, also of runs elsewhere."""
    run, arun = plan.run, plan.arun
    return plan._replace(
        run=run and _measured(run, took), arun=arun and _ameasured(arun, took), took=took
    )


def _measured(run: Run, took: Callable[[float], None]) -> Run:
    def timed(job: Job) -> Outcome:
        begin = time.perf_counter()
        outcome = run(job)
        took(time.perf_counter() - begin)
        return outcome

    return timed


def _ameasured(arun: AsyncRun, took: Callable[[float], None]) -> AsyncRun:
    async def timed(job: Job) -> Outcome:
        begin = time.perf_counter()
        outcome = await arun(job)
        took(time.perf_counter() - begin)
        return outcome

    return timed


def traced(plan: Plan, logger: logging.Logger) -> Plan:
    """Return the plan with the start and end of each run told, where the logger is at DEBUG."""
    if not logger.isEnabledFor(logging.DEBUG):
        return plan
    run, arun = plan.run, plan.arun
    return plan._replace(run=run and _traced(run, logger), arun=arun and _atraced(arun, logger))


def _traced(run: Run, logger: logging.Logger) -> Run:
    def told(job: Job) -> Outcome:
        begin = _tell_start(job, logger)
        outcome = run(job)
        _tell_end(job, logger, outcome, begin)
        return outcome

    return told


def _atraced(arun: AsyncRun, logger: logging.Logger) -> AsyncRun:
    async def told(job: Job) -> Outcome:
        begin = _tell_start(job, logger)
        outcome = await arun(job)
        _tell_end(job, logger, outcome, begin)
        return outcome

    return told


def _tell_start(job: Job, logger: logging.Logger) -> float:
    which, attempt = named(job), job.attempt + 1
    tell(logger, logging.DEBUG, "%s starts, attempt %d", which, attempt, extra=facts_of(job))
    return time.perf_counter()


def _tell_end(job: Job, logger: logging.Logger, outcome: Outcome, begin: float) -> None:
    took, kind = time.perf_counter() - begin, type(outcome).__name__.lower()
    text = "%s %s after %.6f s"
    tell(logger, logging.DEBUG, text, named(job), kind, took, extra=facts_of(job))
