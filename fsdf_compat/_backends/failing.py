"""What a failure means for others: the rest of its chain, errbacks, the chord that it is in."""

from __future__ import annotations

import logging
import sys
from collections import deque
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo

from .. import states
from .._upward import LateModule, upward
from ..exceptions import ChordError, NotRegistered
from ..utils.functional import arity_greater, maybe_list
from .part import Part

__all__ = ["Failing", "chord_error", "result_errbacks", "stand_in_request"]
logger = logging.getLogger("celery.backends.base")
_public = LateModule("backends.base")


def chord_error(message: str, original_exc: Any = None) -> ChordError:
    """Return a ChordError, caused by an exception where there is one."""
    error = ChordError(message)
    if isinstance(original_exc, Exception):
        error.__cause__ = original_exc
    return error


def stand_in_request(
    task_id: Any, errbacks: Any = None, task_name: str = "unknown", **extra: Any
) -> Any:
    """Return the request of a task that has not run, for its errbacks."""
    known = {"id": task_id, "errbacks": errbacks or [], "delivery_info": {}, "task": task_name}
    return upward("app.task").Context({**known, **extra})


def result_errbacks(sig: Any, app: Any) -> tuple[Any, list[Any]]:
    """Return the id of a frozen signature's result, and the errbacks of all that makes it."""
    sig = _public.maybe_signature(sig, app=app)
    errbacks: list[Any] = []
    while isinstance(sig, _public.chord) and sig.body is not None:
        errbacks += maybe_list(sig.options.get("link_error")) or []
        sig = _public.maybe_signature(sig.body, app=app)
    errbacks += maybe_list(sig.options.get("link_error")) or []
    if isinstance(sig, _public.group):
        for task in sig.tasks:
            errbacks += result_errbacks(task, app)[1]
    return sig.options.get("task_id"), errbacks


def _parts(request: Any) -> tuple[list[Any], list[Any]]:
    """Return the calls in a call that is not sent: those that are parts of its end, and a header.

    Somebody may wait for the result of each.
    """
    kwargs = request.kwargs or {}
    match getattr(request, "subtask_type", None):
        case "chord":
            header = kwargs.get("header") or []
            if isinstance(header, dict):
                header = header["kwargs"]["tasks"]
            return [body] if (body := kwargs.get("body")) is not None else [], list(header)
        case "group" | "chain":
            return list(kwargs.get("tasks") or ()), []
    return [], []


class Failing(Part):
    """The part of a backend that tells of failures. Its methods are those of the backend."""

    # ---------------------------------------------------------------- the rest of a chain

    def _fail_chain(
        self,
        chain: Any,
        exc: Any,
        traceback: Any = None,
        store_result: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Let what follows in a chain have failed, too, so that nobody waits for it."""
        try:
            ahead = deque((call, True) for call in chain)
        except TypeError:  # None, or what stands for it in a test
            return
        context = upward("app.task").Context
        while ahead:
            call, joined = ahead.popleft()
            request = context(call)
            options = request.get("options") or {}  # anybody may have written it
            request.update(options)
            request.id, request.group = options.get("task_id"), options.get("group_id")
            tells = joined and "chord" in options and not self._has_told(request)
            if store_result and state in states.PROPAGATE_STATES and request.id is not None:
                self.store_result(request.id, exc, state, traceback=traceback, request=request)
            if tells:
                self.on_chord_part_return(request, state, exc)
            parts, header = _parts(request)
            ahead.extend((part, joined) for part in parts)
            if getattr(self, "native", False):  # Celery's own leave who waits for these waiting
                ahead.extend((part, False) for part in header)  # there is no chord yet to be told

    def _has_told(self, request: Any) -> bool:
        """Say whether a chord is told of it; where a repeat counts once it may be repeated."""
        if request.id is None or getattr(self, "native", False):
            return False
        return self.get_state(request.id) in states.PROPAGATE_STATES

    # ---------------------------------------------------------------- errbacks

    def _errback_arity_greater(self, errback: Any, n: int) -> bool:
        """Say whether an errback takes more than `n` arguments, beside those that it has."""
        header = errback.type.__header__
        if not errback.immutable and (errback.args or errback.kwargs):
            try:
                return arity_greater(partial(header, *errback.args, **errback.kwargs), n)
            except (TypeError, ValueError):  # its arguments do not fit; it will say so itself
                pass
        return arity_greater(header, n)

    def _is_called_here(self, errback: Any) -> bool:
        """Say whether an errback takes (request, exception, traceback), and is a plain function.

        Raises:
            NotRegistered: it is not known here.
        """
        header = getattr(errback.type, "__header__", None)
        if header is None or isinstance(header, partial):  # of a class; bound, it may retry
            return False
        return self._errback_arity_greater(errback, 1)

    def _calls_errbacks(self, body: Any) -> bool:
        """Say whether the failure of a chord's body means to call plain functions."""
        calls = map(self.app.signature, result_errbacks(body, self.app)[1])
        return any(self._is_called_here(call) for call in calls if call.task in self.app.tasks)

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """Call errbacks that take the failure, here; send those that take a task's id."""
        sent = []
        for errback in request.errbacks:
            errback = self.app.signature(errback)
            errback._app = errback._app or self.app
            try:
                here = self._is_called_here(errback)
            except NotRegistered:  # perhaps another worker has it
                here = False
            if not here:
                sent.append(errback)
                continue
            try:
                errback(request, exc, traceback)
            except Exception:
                logger.exception("Errback %r raised an exception", errback.name)
        if sent:
            calls = _public.group(sent, app=self.app)
            eager = self.app.conf.task_always_eager or request.delivery_info.get("is_eager", False)
            send = calls.apply if eager else calls.apply_async
            send((request.id,), parent_id=request.id, root_id=request.root_id or request.id)

    # ---------------------------------------------------------------- chords

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Let the body of a chord have failed: store that, and call its errbacks."""
        if exc is None:
            exc = sys.exc_info()[1]
        try:
            backend = self.app._tasks[callback.task].backend
        except KeyError:
            backend = self
        if isinstance(callback, _public.group):
            info = self._handle_group_chord_error(group_callback=callback, backend=backend, exc=exc)
        else:
            if isinstance(callback, upward("canvas")._chain):  # its id is that of its last task
                backend._fail_chain(callback.tasks, exc)
            elif "chord" in callback.options:  # a part of another one
                backend._fail_chain([callback], exc)
            info, exc = self._fail_body(callback, backend, exc)
        backend._fail_chain(callback.options.get("chain"), exc)
        return info

    def _fail_body(self, callback: Any, backend: Any, exc: Any) -> tuple[Any, Any]:
        """Return what is known of the failure, and its exception: an errback's, if that fails."""
        id = callback.id
        if not id:
            id = callback.options["task_id"] = upward("canvas").uuid()
        request = stand_in_request(
            task_id=callback.options.get("task_id"),
            errbacks=callback.options.get("link_error", []),
            **callback,
        )
        try:
            self._call_task_errbacks(request, exc, None)
        except Exception as error:
            return backend.fail_from_current_stack(id, exc=error), error
        return backend.fail_from_current_stack(id, exc=exc), exc

    def _handle_group_chord_error(self, group_callback: Any, backend: Any, exc: Any = None) -> Any:
        """Let all tasks of a group that is a chord's body have failed, and have none of them run.

        The failures are stored before the tasks are revoked: what has ended is not revoked.
        """
        cause = exc.__cause__ if isinstance(exc, ChordError) and exc.__cause__ else exc
        try:
            frozen = group_callback.freeze()
            if isinstance(frozen, upward("result").GroupResult):
                backend._fail_chain(group_callback.tasks, cause)
                self._fail_members(group_callback, frozen, backend, cause)
                if (id := getattr(frozen, "id", None)) is not None:
                    backend.mark_as_failure(id, cause)
                frozen.revoke()
        except Exception as error:
            logger.exception(
                "Failed to handle group chord error, falling back to single task handling: %r",
                error,
            )
            return backend.fail_from_current_stack(group_callback.id, exc=exc)
        return None

    def _fail_members(self, callback: Any, frozen: Any, backend: Any, cause: Any) -> None:
        shared = maybe_list(callback.options.get("link_error")) or []
        own = dict(result_errbacks(task, self.app) for task in callback.tasks)
        for result in frozen.results:
            errbacks: list[Any] = []
            for errback in (*own.get(result.id, ()), *shared):
                if errback not in errbacks:
                    errbacks.append(errback)
            request = stand_in_request(
                task_id=result.id, errbacks=errbacks, task_name=getattr(result, "task", "unknown")
            )
            try:
                backend._call_task_errbacks(request, cause, None)
            except Exception:
                logger.exception("Failed to call the errbacks of task %s", result.id)
            try:
                backend.fail_from_current_stack(result.id, exc=cause)
            except Exception as error:
                logger.exception("Failed to handle chord error for task %s: %r", result.id, error)

    def fail_from_current_stack(self, task_id: Any, exc: Any = None) -> Any:
        """Store a failure with the traceback of the exception that is being handled."""
        kind, raised, trace = sys.exc_info()
        try:
            info = ExceptionInfo((kind, raised if exc is None else exc, trace))
            self.mark_as_failure(task_id, raised if exc is None else exc, info.traceback)
            return info
        finally:
            while trace is not None:  # frames would keep what their variables hold
                try:
                    trace.tb_frame.clear()
                    trace.tb_frame.f_locals  # noqa: B018  forgets its copy of them
                except RuntimeError:  # it is still executing
                    pass
                trace = trace.tb_next
