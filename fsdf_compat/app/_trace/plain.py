"""The short way of runs that nobody watches: no hook, no receiver, no link, nothing of their own.

It does what the tracer does, less what would have no effect. A run by a worker has a context of its
own, which ends with it, so nothing is taken off the stacks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..._engine.requests import PLAIN
from ..._engine.run import Run, current_run
from ..._state import _task_stack
from ...signals import task_postrun, task_prerun, task_success
from ...states import SUCCESS
from ..task import Context

__all__ = ["shortened"]
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
            or ((task_prerun.receivers or task_postrun.receivers) and _is_watched())
        ):  # fmt: skip
            return trace(uuid, args, kwargs, request)
        start, context = monotonic(), new(Context)
        context.__dict__ = {**request, "args": args, "kwargs": kwargs, "called_directly": False}
        begin_task(task)
        begin_request(context)
        is_run = False
        try:
            value, is_run = fun(*args, **kwargs), True
            said = request.get("ignore_result")
            if not (task.ignore_result if said is None else said):
                _store(run, task, uuid, value, context)
        except Exception as exc:
            it = traced(uuid, args, kwargs, start, run, context)
            tracer.go_wrong(it, request, exc, is_run)
            return answer(it.R, it.I, it.T, it.Rstr)
        if shows(logging.INFO):
            it = traced(uuid, args, kwargs, start, run)
            it.R = it.retval = value
            tracer.tell_success(it, context)
        if task_postrun.receivers and task_postrun.is_heard():  # since the run has begun
            _tell_end(task, uuid, args, kwargs, value)
        return answer(value, None, monotonic() - start, None)

    return trace_plain


def _store(run: Run, task: Any, uuid: str, value: Any, context: Any) -> None:
    backend = task.backend
    if not getattr(backend, "native", False):
        backend.mark_as_done(uuid, value, context, True)
        return
    alone = not (run.effects or run.again or context._children or task._backend)
    told = backend.value_json(uuid, value) if alone else None
    if told is None:
        run.record(backend.record(uuid, SUCCESS, value, None, context))
    else:
        run.told = told


def _is_watched() -> bool:
    return task_prerun.is_heard() or task_postrun.is_heard()


def _tell_end(task: Any, uuid: str, args: Any, kwargs: Any, value: Any) -> None:
    task_postrun.send(
        sender=task, task_id=uuid, task=task, args=args, kwargs=kwargs, retval=value, state=SUCCESS
    )
