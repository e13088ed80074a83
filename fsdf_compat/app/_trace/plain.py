"""The short way of most runs: no hook, no receiver of successes, no link, nothing of their own.

It does what the tracer does, less what would have no effect. A run by a worker has a context of its
own, which ends with it, so nothing is taken off the stacks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import ReferenceType

from ..._engine.requests import PLAIN
from ..._engine.run import Run, current_run
from ..._state import _task_stack
from ...signals import task_postrun, task_prerun, task_success
from ...states import SUCCESS
from ..task import Context

__all__ = ["is_observed", "shortened"]
_OURS = f"{__name__.partition('.')[0]}."
Trace = Callable[..., Any]


def shortened(tracer: Any, traced: Any, trace: Trace, answer: Callable[..., Any]) -> Trace:
    """Return a tracer that goes the short way where it can, and else calls `trace`."""
    task, fun, monotonic = tracer.task, tracer.fun, tracer.monotonic
    begin_task, begin_request, new = _task_stack.begin, task.request_stack.begin, Context.__new__
    shows = tracer.trace.logger.isEnabledFor

    def trace_plain(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        run = current_run.get()
        if (
            run is None or request is None or task.track_started or task_success.receivers
            or len(request) != PLAIN + ("ignore_result" in request)
        ):  # fmt: skip
            return trace(uuid, args, kwargs, request)
        run.began = start = monotonic()
        context = new(Context)
        context.__dict__ = {**request, "args": args, "kwargs": kwargs, "called_directly": False}
        begin_task(task)
        begin_request(context)
        is_run = False
        try:
            if task_prerun.receivers and task_prerun.is_heard():
                task_prerun.send(sender=task, task_id=uuid, task=task, args=args, kwargs=kwargs)
            value, is_run = fun(*args, **kwargs), True
            heard = task_postrun.receivers and task_postrun.is_heard()
            said = request.get("ignore_result")
            if not (task.ignore_result if said is None else said):
                _store(run, task, uuid, value, context, heard)
        except BaseException as exc:
            it = traced(uuid, args, kwargs, start, run, context)
            tracer.go_wrong(it, request, exc, is_run)
            return answer(it.R, it.I, it.T, it.Rstr)
        if shows(logging.INFO):
            it = traced(uuid, args, kwargs, start, run)
            it.R = it.retval = value
            tracer.tell_success(it, context)
        if heard:
            _tell_end(run, task, uuid, args, kwargs, value)
        return answer(value, None, monotonic() - start, None)

    return trace_plain


def _store(run: Run, task: Any, uuid: str, value: Any, context: Any, heard: Any) -> None:
    backend = task.backend
    if not getattr(backend, "native", False):
        backend.mark_as_done(uuid, value, context, True)
        return
    alone = not (heard or run.effects or run.again or context._children or task._backend)
    told = backend.value_json(uuid, value) if alone else None
    if told is None:
        run.record(backend.record(uuid, SUCCESS, value, None, context))
    else:
        run.told = told


def is_observed(signal: Any, hook: Any) -> bool:
    """Say whether code of the user's is told, which could look for what is not stored yet."""
    if hook is not None:
        return True
    for _, receiver in signal.receivers:
        called = receiver() if isinstance(receiver, ReferenceType) else receiver
        if not str(getattr(called, "__module__", "")).startswith(_OURS):
            return True
    return False


def _tell_end(run: Run, task: Any, uuid: str, args: Any, kwargs: Any, value: Any) -> None:
    if run.effects and is_observed(task_postrun, None):
        run.commit()
    task_postrun.send(
        sender=task, task_id=uuid, task=task, args=args, kwargs=kwargs, retval=value, state=SUCCESS
    )
