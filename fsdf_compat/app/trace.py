"""What a worker does with a call, step by step: hooks, signals, results, links, log lines.

Tools replace `build_tracer` here; it is looked up for each task and process. What it returns is
called with (id, args, kwargs, request), and for `async def` tasks awaited, but for eager calls.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from warnings import warn

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from kombu.serialization import loads as loads_message
from kombu.serialization import prepare_accept_content
from kombu.utils.encoding import safe_repr, safe_str

from .. import signals, states
from .._engine.run import current_run
from .._state import current_app
from ..canvas import group  # noqa: F401  looked up here
from ..exceptions import Ignore, Reject
from ..result import AsyncResult  # noqa: F401  looked up here
from ..utils.log import get_logger
from ..utils.nodenames import gethostname
from ..utils.objects import mro_lookup
from ..utils.serialization import (
    get_pickleable_etype,
    get_pickleable_exception,
    get_pickled_exception,
)
from ._trace.tracer import Tracer
from .task import Task as BaseTask
from .task import get_actual_ignore_result

__all__ = ("TraceInfo", "build_tracer", "reset_worker_optimizations",
           "setup_worker_optimizations", "trace_task")  # fmt: skip

logger = get_logger("celery.app.trace")

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"

log_policy_t = namedtuple(
    "log_policy_t", ("format", "description", "severity", "traceback", "mail")
)
log_policy_reject = log_policy_t(LOG_REJECTED, "rejected", logging.WARNING, 1, 1)
log_policy_ignore = log_policy_t(LOG_IGNORED, "ignored", logging.INFO, 0, 0)
log_policy_internal = log_policy_t(LOG_INTERNAL_ERROR, "INTERNAL ERROR", logging.CRITICAL, 1, 1)
log_policy_expected = log_policy_t(LOG_FAILURE, "raised expected", logging.INFO, 0, 0)
log_policy_unexpected = log_policy_t(LOG_FAILURE, "raised unexpected", logging.ERROR, 1, 1)

IGNORE_STATES = frozenset({states.IGNORED, states.RETRY, states.REJECTED})
trace_ok_t = namedtuple("trace_ok_t", ("retval", "info", "runtime", "retstr"))
# Where the methods of a task are that nobody has overridden.
_ORIGINAL = {__name__, BaseTask.__module__, BaseTask.__call__.__module__}
_localized: list[Any] = []  # of this worker: its tasks, what content it accepts, its name
_patched: dict[str, Any] = {}


def info(fmt: str, context: dict[str, Any]) -> None:
    """Log at INFO; what is filled in is the record's `data`, too."""
    logger.info(fmt, context, extra={"data": context})


def task_has_custom(task: Any, attr: str) -> Any:
    """Return the class that overrides a task's attribute, or None."""
    return mro_lookup(task.__class__, attr, stop={BaseTask, object}, monkey_patched=_ORIGINAL)


def get_log_policy(task: Any, einfo: Any, exc: BaseException) -> Any:
    """Return how an error is logged."""
    if isinstance(exc, Reject):
        return log_policy_reject
    if isinstance(exc, Ignore):
        return log_policy_ignore
    if einfo.internal:
        return log_policy_internal
    expected = task.throws and isinstance(exc, task.throws)
    return log_policy_expected if expected else log_policy_unexpected


def get_task_name(request: Any, default: str) -> str:
    """Return the name to show: the request's `shadow`, if it has one."""
    return getattr(request, "shadow", None) or default


def _reprs(request: Any) -> dict[str, str]:
    """Return the texts of a request's arguments, as its publisher gave them if it did."""
    return {
        "args": request.get("argsrepr") or safe_repr(request.args),
        "kwargs": request.get("kwargsrepr") or safe_repr(request.kwargs),
    }


def log_success(name: str, it: Any, request: Any) -> None:
    """Log that a run has succeeded."""
    told = {
        "id": it.uuid,
        "name": get_task_name(request, name),
        "return_value": it.Rstr,
        "runtime": it.T,
        **_reprs(request),
    }
    info(LOG_SUCCESS, told)


def log_done(name: str, request: Any) -> None:
    """Log that a redelivered message has run before."""
    said = "Task already completed successfully."
    told = {"id": request.id, "name": get_task_name(request, name), "description": said}
    info(LOG_IGNORED, told)


class TraceInfo:
    """How a run ended that did not succeed: its state, and the exception as `retval`."""

    __slots__ = ("retval", "state")

    def __init__(self, state: str, retval: Any = None) -> None:
        self.state, self.retval = state, retval

    def handle_error_state(
        self, task: Any, req: Any, eager: bool = False, call_errbacks: bool = True
    ) -> Any:
        """Store the state, if it is to be stored, and tell of it."""
        if get_actual_ignore_result(task, req):
            store = task.store_errors_even_if_ignored
        else:
            store = not eager or bool(task.store_eager_result)
        handle: Any = self.handle_retry if self.state == states.RETRY else self.handle_failure
        return handle(task, req, store_errors=store, call_errbacks=call_errbacks)

    def handle_reject(self, task: Any, req: Any, **kwargs: Any) -> None:
        """Log that the task has rejected its message."""
        self._log_error(task, req, ExceptionInfo())

    def handle_ignore(self, task: Any, req: Any, **kwargs: Any) -> None:
        """Log that the task wants nothing told of this run."""
        self._log_error(task, req, ExceptionInfo())

    def handle_retry(self, task: Any, req: Any, store_errors: bool = True, **kwargs: Any) -> Any:
        """Store and tell that another attempt follows."""
        reason = self.retval
        kind, _, tb = sys.exc_info()
        einfo = ExceptionInfo((kind, reason, tb))
        if store_errors:
            with _leaving_with_run(task.app):
                task.backend.mark_as_retry(req.id, reason.exc, einfo.traceback, request=req)
        task.on_retry(reason.exc, req.id, req.args, req.kwargs, einfo)
        signals.task_retry.send(sender=task, request=req, reason=reason, einfo=einfo)
        told = {"id": req.id, "name": get_task_name(req, task.name), "exc": str(reason)}
        info(LOG_RETRY, told)
        traceback_clear(einfo.exception)
        return einfo

    def handle_failure(
        self, task: Any, req: Any, store_errors: bool = True, call_errbacks: bool = True
    ) -> Any:
        """Store and tell what the task has raised."""
        exc = get_pickleable_exception(self.retval)
        if exc.__traceback__ is None:  # another one stands for it
            exc.__traceback__ = sys.exc_info()[2]
        kind = get_pickleable_etype(type(self.retval))
        einfo = ExceptionInfo(exc_info=(kind, exc, exc.__traceback__))
        with _leaving_with_run(task.app):
            task.backend.mark_as_failure(
                req.id, exc, einfo.traceback, request=req, store_result=store_errors,
                call_errbacks=call_errbacks,
            )  # fmt: skip
        task.on_failure(exc, req.id, req.args, req.kwargs, einfo)
        signals.task_failure.send(
            sender=task, task_id=req.id, exception=exc, args=req.args, kwargs=req.kwargs,
            traceback=exc.__traceback__, einfo=einfo,
        )  # fmt: skip
        self._log_error(task, req, einfo)
        traceback_clear(exc)
        return einfo

    def _log_error(self, task: Any, req: Any, einfo: Any) -> None:
        error = get_pickled_exception(einfo.exception)
        einfo.exception = error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        policy = get_log_policy(task, einfo, error)
        told = {
            "hostname": req.hostname,
            "id": req.id,
            "name": get_task_name(req, task.name),
            "exc": safe_repr(error),
            "traceback": safe_str(einfo.traceback),
            **_reprs(req),
            "description": policy.description,
            "internal": einfo.internal,
        }
        shown = einfo.exc_info if policy.traceback else None
        logger.log(policy.severity, policy.format, told, exc_info=shown, extra={"data": told})


def reject_for_good(task: Any, req: Any, exc: BaseException) -> None:
    """Store and tell that a message is rejected and will not come again."""
    stores = not get_actual_ignore_result(task, req) or task.store_errors_even_if_ignored
    with _leaving_with_run(task.app):
        task.backend.mark_as_failure(req.id, exc, request=req, store_result=stores)
    einfo = ExceptionInfo()
    signals.task_failure.send(
        sender=task, task_id=req.id, exception=exc, args=req.args, kwargs=req.kwargs,
        traceback=einfo.traceback, einfo=einfo,
    )  # fmt: skip


def _leaving_with_run(app: Any) -> Any:
    """Have what is stored and published meanwhile leave with the end of the run, if it has one."""
    run = current_run.get()
    return nullcontext() if run is None else run.collecting(app)


def traceback_clear(exc: Any = None) -> None:
    """Drop what the frames of a traceback hold: a stored exception keeps them alive."""
    tb = getattr(exc, "__traceback__", sys.exc_info()[2])
    while tb is not None:
        try:
            tb.tb_frame.clear()
        except RuntimeError:  # it still runs
            pass
        tb = tb.tb_next


def build_tracer(
    name: str,
    task: Any,
    loader: Any = None,
    hostname: str | None = None,
    store_errors: bool = True,
    Info: Any = TraceInfo,
    eager: bool = False,
    propagate: bool = False,
    app: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
    trace_ok_t: Any = trace_ok_t,
    IGNORE_STATES: frozenset[str] = IGNORE_STATES,
) -> Callable[..., Any]:
    """Return what runs a task and tells how it went, as (value, info, runtime, text of the value).

    `info` is None of a run that succeeded. It is called with (id, args, kwargs, request), the
    request a mapping of headers; of an `async def` task the answer is to be awaited. `eager` calls
    run such a task to its end, store nothing unless `store_eager_result` says so, and raise with
    `propagate`.
    """
    tracer = Tracer(name, task, app or task.app, loader, hostname)
    tracer.eager, tracer.propagate, tracer.info_class = eager, propagate, Info
    tracer.monotonic, tracer.ignored_states = monotonic, IGNORE_STATES
    return tracer.compiled(trace_ok_t)


def trace_task(
    task: Any, uuid: str, args: Any, kwargs: Any, request: Any = None, **opts: Any
) -> Any:
    """Trace a run, by the task's tracer, which is made the first time; an error is told of."""
    request = request or {}
    try:
        if task.__trace__ is None:
            task.__trace__ = build_tracer(task.name, task, **opts)
        return task.__trace__(uuid, args, kwargs, request)
    except Reject:
        raise
    except Exception as exc:
        _signal_internal_error(task, uuid, args, kwargs, request, exc)
        failed = TraceInfo(states.FAILURE, exc)
        return trace_ok_t(report_internal_error(task, exc), failed, 0.0, None)


def _signal_internal_error(
    task: Any, uuid: str, args: Any, kwargs: Any, request: Any, exc: BaseException
) -> None:
    """Tell of an error that is not the task's own, in the `except` clause that caught it."""
    einfo = ExceptionInfo()
    einfo.exception = get_pickleable_exception(einfo.exception)
    einfo.type = get_pickleable_etype(einfo.type)
    signals.task_internal_error.send(
        sender=task, task_id=uuid, args=args, kwargs=kwargs, request=request, exception=exc,
        traceback=sys.exc_info()[2], einfo=einfo,
    )  # fmt: skip
    traceback_clear(einfo.exception)


def report_internal_error(task: Any, exc: BaseException) -> Any:
    """Warn of an error that is not the task's own; return it as an ExceptionInfo."""
    kind, _, tb = sys.exc_info()
    value = task.backend.prepare_exception(exc, "pickle")
    einfo = ExceptionInfo((kind, value, tb), internal=True)
    text = f"Exception raised outside body: {exc!r}:\n{einfo.traceback}"
    warn(RuntimeWarning(text), stacklevel=2)
    return einfo


def _opened(
    request: dict[str, Any], hostname: str, body: Any, content: tuple[Any, Any], loads: Any,
    accept: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """Return a message's arguments, and complete its request."""
    args, kwargs, embed = loads(body, *content, accept=accept) if content[0] else body
    told = {"args": args, "kwargs": kwargs, "hostname": hostname, "is_eager": False}
    request.update({**told, **(embed or {})})
    return args, kwargs


def trace_task_ret(
    name: str, uuid: str, request: Any, body: Any, content_type: Any, content_encoding: Any,
    loads: Any = loads_message, app: Any = None, **extra_request: Any,
) -> tuple[int, Any, Any]:  # fmt: skip
    """Trace a run from a message's parts; return (failed, value or its text, seconds)."""
    app = app or current_app._get_current_object()
    accept = prepare_accept_content(app.conf.accept_content) if content_type else None
    content = content_type, content_encoding
    args, kwargs = _opened(request, gethostname(), body, content, loads, accept)
    told = trace_task(app.tasks[name], uuid, args, kwargs, request, app=app)
    return (1, told.retval, told.runtime) if told.info else (0, told.retstr, told.runtime)


def fast_trace_task(
    task: str, uuid: str, request: Any, body: Any, content_type: Any, content_encoding: Any,
    loads: Any = loads_message, _loc: Any = None, hostname: Any = None, **_: Any,
) -> tuple[int, Any, Any]:  # fmt: skip
    """As `trace_task_ret`, by the tracers that `setup_worker_optimizations` has made known."""
    try:
        tasks, accept, hostname = _loc or _localized
    except ValueError:
        raise RuntimeError(
            "fast_trace_task: worker task registry is empty: setup_worker_optimizations() has not"
            " run in this process, which is so if it was spawned; use --pool=threads or solo"
        ) from None
    content = content_type, content_encoding
    args, kwargs = _opened(request, hostname, body, content, loads, accept)
    told = tasks[task].__trace__(uuid, args, kwargs, request)
    return (1, told.retval, told.runtime) if told.info else (0, told.retstr, told.runtime)


# ---------------------------------------------------------------- a process that works


def setup_worker_optimizations(app: Any, hostname: str | None = None) -> None:
    """Make this process one that works for an app: it is the current one in every thread."""
    _protect_stack()
    app.set_current()
    app.set_default()
    app.finalize()
    accept = prepare_accept_content(app.conf.accept_content)
    _localized[:] = [app._tasks, accept, hostname or gethostname()]
    app.use_fast_trace_task = True


def reset_worker_optimizations(app: Any = current_app) -> None:
    """Undo `setup_worker_optimizations`."""
    if "_stackprotected" in vars(BaseTask):
        del BaseTask._stackprotected  # type: ignore[attr-defined]
    if original := _patched.pop("BaseTask.__call__", None):
        BaseTask.__call__ = original  # type: ignore[method-assign]
    app.use_fast_trace_task = False


def _protect_stack() -> None:
    """Let a task's own `__call__` call its base's: that does not begin another request."""
    if getattr(BaseTask, "_stackprotected", False):
        return
    _patched["BaseTask.__call__"] = original = BaseTask.__call__

    def __protected_call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        stack = self.request_stack
        request = stack.top
        if request and not (request._protected or request.called_directly) and len(stack) == 1:
            request._protected = 1
            return self.run(*args, **kwargs)
        return original(self, *args, **kwargs)

    BaseTask.__call__ = __protected_call__  # type: ignore[method-assign]
    BaseTask._stackprotected = True  # type: ignore[attr-defined]
