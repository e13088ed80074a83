"""The tracer: one task's runs, in the order of steps that users can observe.

What tests and tools replace in `app.trace` is looked up there when it is used.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Generator
from importlib import import_module
from typing import Any

from kombu.exceptions import DecodeError, EncodeError, OperationalError

from ..._app.sending import send_task
from ..._engine import steps
from ..._engine.run import Run, current_run
from ..._state import _task_stack
from ...backends.base import Backend
from ...exceptions import BackendGetMetaError, Ignore, InvalidTaskError, Reject, Retry
from ...loaders.base import BaseLoader
from ...signals import task_postrun, task_prerun, task_success
from ...states import FAILURE, IGNORED, REJECTED, RETRY, STARTED, SUCCESS
from ...utils.nodenames import gethostname
from ...utils.saferepr import saferepr
from ..task import APPLY_ASYNC, Context, get_actual_ignore_result
from .awaiting import complete, drive
from .plain import is_observed, shortened

__all__ = ["Tracer"]


class Traced:
    """One run as it is traced. `retval` is the value or the error, `R` what a caller is told."""

    __slots__ = ("I", "R", "Rstr", "T", "args", "context", "kwargs", "retval", "run", "start",
                 "state", "stores", "uuid")  # fmt: skip

    def __init__(
        self, uuid: str, args: Any, kwargs: Any, start: float, run: Run | None, context: Any = None
    ) -> None:
        self.uuid, self.args, self.kwargs, self.start, self.run = uuid, args, kwargs, start, run
        self.R: Any = None
        self.I: Any = None
        self.T: float | None = None
        self.Rstr: str | None = None
        self.retval: Any = None
        self.state: str | None = None
        self.context = context
        self.stores = False
        if run is not None:
            run.began = start


class Tracer:
    """Traces the runs of one task. `fun` is what is called: `__call__` if the task has its own."""

    def __init__(self, name: str, task: Any, app: Any, loader: Any, hostname: str | None) -> None:
        self.name, self.task, self.app = name, task, app
        self.trace: Any = import_module("..trace", __package__)
        has = self.trace.task_has_custom
        self.fun = task if has(task, "__call__") else task.run
        self.awaits = inspect.iscoroutinefunction(inspect.unwrap(task.run))
        self.loader = loader or app.loader
        self.hostname = hostname or gethostname()
        self.before_start, self.on_success, self.after_return = (
            getattr(task, hook) if has(task, hook) else None
            for hook in ("before_start", "on_success", "after_return")
        )
        self.deduplicates = (
            (app.conf.task_acks_late or task.acks_late)
            and app.conf.worker_deduplicate_successful_tasks
            and app.backend.persistent
        )
        self.inherits_priority = app.conf.task_inherit_parent_priority
        canvas = import_module("...canvas", __package__)
        self.signature, self.plain_call = canvas.maybe_signature, canvas.Signature
        self.sends_itself = getattr(app.send_task, "__func__", None) is send_task
        self.eager = self.propagate = False
        self.monotonic: Callable[[], float] = time.monotonic
        self.info_class: Any = self.trace.TraceInfo
        self.ignored_states = self.trace.IGNORE_STATES

    def compiled(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        """Return the tracer as a function; of an `async def` task its answer is awaited."""

        def trace(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
            it = Traced(uuid, args, kwargs, self.monotonic(), current_run.get())
            for _ in self.steps(it, request):
                pass
            return answer(it.R, it.I, it.T, it.Rstr)

        async def atrace(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
            it = Traced(uuid, args, kwargs, self.monotonic(), current_run.get())
            await drive(self.steps(it, request))
            return answer(it.R, it.I, it.T, it.Rstr)

        def trace_eagerly(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
            token = current_run.set(None)  # its end is not that of the run that calls it
            try:
                if self.awaits:
                    return complete(atrace(uuid, args, kwargs, request))
                return trace(uuid, args, kwargs, request)
            finally:
                current_run.reset(token)

        if self.eager:
            return trace_eagerly
        if self.awaits:
            return atrace
        hooks = self.before_start or self.on_success or self.after_return
        if self.propagate or self.deduplicates or hooks or self.prepares():
            return trace
        return shortened(self, Traced, trace, answer)

    # ---------------------------------------------------------------- the run

    def steps(self, it: Traced, request: Any) -> Generator[Any, Any, None]:
        """Trace a run; what is to be awaited is yielded. `it` says how it went."""
        try:
            context = it.context = self.context_of(it, request)
            if self.deduplicates and self.has_succeeded(it, context):
                return
            _task_stack.push(self.task)
            self.task.request_stack.push(context)
            try:
                self.prepare(it, context)
                try:
                    if self.before_start:
                        self.before_start(it.uuid, it.args, it.kwargs)
                    value = self.fun(*it.args, **it.kwargs)
                    it.retval = it.R = (yield value) if self.awaits else value
                    it.state = SUCCESS
                except Exception as exc:
                    self.fail(it, exc)
                else:
                    if self.succeed(it, context):
                        if it.run and is_observed(task_success, self.on_success):
                            yield it.run.commit()
                        self.tell_success(it, context)
                if it.run and is_observed(task_postrun, self.after_return):
                    yield it.run.commit()
                if self.after_return and it.state not in self.ignored_states:
                    told = it.state, it.retval, it.uuid, it.args, it.kwargs, None
                    self.call_hook("after_return", it, self.after_return, told)
            finally:
                self.finish(it)
        except (MemoryError, Reject):
            raise
        except Exception as exc:
            self.break_off(it, request, exc)

    def context_of(self, it: Traced, request: Any) -> Any:
        """Return the request that the task sees."""
        if not hasattr(it.kwargs, "items"):
            raise InvalidTaskError("Task keyword arguments is not a mapping")
        context = Context(request or {}, args=it.args, called_directly=False, kwargs=it.kwargs)
        ignored = get_actual_ignore_result(self.task, context)
        it.stores = not ignored and (not self.eager or bool(self.task.store_eager_result))
        return context

    def prepare(self, it: Traced, context: Any) -> None:
        """Tell of the start."""
        task = self.task
        if task_prerun.receivers:
            task_prerun.send(
                sender=task, task_id=it.uuid, task=task, args=it.args, kwargs=it.kwargs
            )
        self.loader.on_task_init(it.uuid, task)
        if task.track_started and it.stores and not self.eager:
            meta = {"pid": os.getpid(), "hostname": self.hostname}
            task.backend.store_result(it.uuid, meta, STARTED, request=context)

    def finish(self, it: Traced) -> None:
        """Tell of the end, and leave nothing behind."""
        task = self.task
        try:
            if task_postrun.receivers:
                task_postrun.send(
                    sender=task, task_id=it.uuid, task=task, args=it.args, kwargs=it.kwargs,
                    retval=it.retval, state=it.state,
                )  # fmt: skip
        finally:
            _task_stack.pop()
            task.request_stack.pop()
            if not self.eager:
                self.clean_up()

    def prepares(self) -> bool:
        """Say whether anything is done before or after runs by the loader or the backend."""
        kinds = type(self.loader), type(self.task.backend)
        return any(
            getattr(kind, name, None) is not getattr(base, name)
            for kind, base in zip(kinds, (BaseLoader, Backend))
            for name in ("on_task_init", "on_process_cleanup", "process_cleanup")
            if hasattr(base, name)
        )

    def clean_up(self) -> None:
        """Let the backend and the loader do what they want to do after a run."""
        try:
            self.task.backend.process_cleanup()
            self.loader.on_process_cleanup()
        except MemoryError:
            raise
        except Exception as exc:
            self.trace.logger.error("Process cleanup failed: %r", exc, exc_info=True)

    # ---------------------------------------------------------------- success

    def succeed(self, it: Traced, context: Any) -> bool:
        """Send what follows, and store the result; False if that made the run a failed one."""
        sent = False
        try:
            if (callbacks := self.task.request.callbacks) or vars(context).get("chain"):
                self.dispatch(it, it.retval, callbacks, context)
            sent = True
            self.store(it, context)
        except (DecodeError, EncodeError, OperationalError) as exc:
            if sent and isinstance(exc, OperationalError):
                raise
            self.fail(it, exc)
            return False
        return True

    def store(self, it: Traced, context: Any) -> None:
        """Store the result: when the run ends, where the backend can have it so."""
        backend = self.task.backend
        if it.run is None or not getattr(backend, "native", False):
            backend.mark_as_done(it.uuid, it.retval, context, it.stores)
            return
        if it.stores:
            it.run.record(backend.record(it.uuid, SUCCESS, it.retval, None, context))
        if context.chord:
            with it.run.collecting(self.app):
                backend.on_chord_part_return(context, SUCCESS, it.retval)

    def tell_success(self, it: Traced, context: Any) -> None:
        """Call the hook and the receivers, and log."""
        logger = self.trace.logger
        shown = logger.isEnabledFor(logging.INFO)
        if shown or self.eager or it.run is None:
            it.Rstr = saferepr(it.R, self.task.resultrepr_maxsize)
        it.T = self.monotonic() - it.start
        if self.on_success:
            told = it.retval, it.uuid, it.args, it.kwargs
            self.call_hook("on_success", it, self.on_success, told)
        if task_success.receivers:
            task_success.send(sender=self.task, result=it.retval, runtime=it.T)
        if shown:
            self.trace.log_success(self.name, it, context)

    def call_hook(
        self, hook: str, it: Traced, call: Callable[..., Any], told: tuple[Any, ...]
    ) -> None:
        """Call a hook of a run whose end is stored: what it raises changes nothing any more."""
        try:
            call(*told)
        except (Reject, MemoryError):
            raise
        except Exception as exc:
            if self.eager:
                raise
            self.trace.logger.exception(
                f"Task %s[%s] {hook} handler raised: %r",
                self.trace.get_task_name(it.context, self.name), it.uuid, exc,
            )  # fmt: skip
            self.trace.traceback_clear(exc)

    def dispatch(self, it: Traced, value: Any, callbacks: Any, context: Any) -> None:
        """Send links and the next element of a chain: with the end of the run, if it has one."""
        if it.run is None:
            self._dispatch(it.uuid, value, callbacks, context)
            return
        with it.run.collecting(self.app):
            self._dispatch(it.uuid, value, callbacks, context)

    def _dispatch(self, uuid: str, value: Any, callbacks: Any, context: Any) -> None:
        publish = self.app.amqp._retry_publish
        group = self.trace.group
        info = context.delivery_info or {}
        options = {
            "parent_id": uuid,
            "root_id": context.root_id or uuid,
            "priority": info.get("priority") if self.inherits_priority else None,
        }
        signatures = [self.signature(each, app=self.app) for each in callbacks or ()]
        if len(signatures) > 1:
            # a group keeps track of its own members, so groups are not put into another one
            groups = [each for each in signatures if isinstance(each, group)]
            others = [each for each in signatures if not isinstance(each, group)]
            signatures = [*groups, *([group(others, app=self.app)] if others else [])]
        for each in signatures:
            publish(each.apply_async, (value,), **options)
        if chain := vars(context).get("chain"):
            step, rest = steps.after(chain)
            following = self.signature(step, app=self.app)
            if not self.hands_on(following):
                rest = steps.opened(rest)
            publish(following.apply_async, (value,), chain=rest, **options)

    def hands_on(self, call: Any) -> bool:
        """Say whether no code of the user's sees what comes after a call on its way out."""
        send = getattr(call._apply_async, "__func__", None)
        return self.sends_itself and type(call) is self.plain_call and send is APPLY_ASYNC

    # ---------------------------------------------------------------- other ends

    def fail(self, it: Traced, exc: Any) -> None:
        """Handle what a run has raised, in the `except` clause that caught it."""
        state = next((state for kind, state in _STATES if isinstance(exc, kind)), FAILURE)
        if state in (REJECTED, IGNORED):
            it.I, it.R = self.info_class(state, exc), self.trace.ExceptionInfo(internal=True)
            handle = it.I.handle_reject if state == REJECTED else it.I.handle_ignore
            handle(self.task, it.context)
            if it.run is not None and state == REJECTED and not exc.requeue:
                self.trace.reject_for_good(self.task, it.context, exc)
        else:
            if self.propagate:
                raise exc
            it.I = self.info_class(state, exc)
            it.R = self.handle_error(it, state)
        it.state, it.retval = state, exc
        self.trace.traceback_clear(exc)

    def go_wrong(self, it: Traced, request: Any, exc: BaseException, is_run: bool) -> None:
        """Handle what ended a run on the short way: its code, or what stores its result."""
        try:
            if not isinstance(exc, Exception):  # meant to end it, or more than it
                raise exc
            if is_run and not isinstance(exc, EncodeError):
                self.break_off(it, request, exc)
            else:
                self.fail(it, exc)
                if it.run and is_observed(task_postrun, None):
                    it.run.commit()
        except (MemoryError, Reject):
            raise
        except Exception as error:
            self.break_off(it, request, error)
        finally:
            self.finish(it)

    def handle_error(self, it: Traced, state: str) -> Any:
        """Store an error, and call what is to be told of it."""
        return it.I.handle_error_state(
            self.task, it.context, eager=self.eager, call_errbacks=state == FAILURE
        )

    def break_off(self, it: Traced, request: Any, exc: Exception) -> None:
        """Handle an error that is not the task's own: of a backend, a receiver, the request."""
        self.trace._signal_internal_error(self.task, it.uuid, it.args, it.kwargs, request, exc)
        if self.eager:
            raise exc
        it.R = self.trace.report_internal_error(self.task, exc)
        if it.context is not None:
            if self.propagate:
                raise exc
            it.I = self.info_class(FAILURE, exc)
            self.handle_error(it, FAILURE)

    # ---------------------------------------------------------------- deliveries of what is done

    def has_succeeded(self, it: Traced, context: Any) -> bool:
        """Say whether a redelivered message has run before; what it did not send is sent."""
        if not (context.delivery_info or {}).get("redelivered"):
            return False
        done = import_module("...worker.state", __package__).successful_requests
        if context.id in done:
            return True
        result = self.trace.AsyncResult(context.id, app=self.app)
        try:
            if result.state != SUCCESS:
                return False
        except BackendGetMetaError:
            return False
        self.trace.log_done(self.name, context)
        try:
            meta = result._get_task_meta()
            if (context.callbacks or context.chain) and not meta.get("children"):
                self.dispatch(it, meta.get("result"), context.callbacks, context)
            done.add(context.id)
        except MemoryError:
            raise
        except Exception as exc:
            text = "Failed to dispatch chain/callbacks for deduplicated task %s"
            self.trace.logger.error(text, context.id, exc_info=True)
            raise Reject(exc, requeue=True) from exc
        return True


_STATES = ((Reject, REJECTED), (Ignore, IGNORED), (Retry, RETRY))
