"""`AsyncResult`: what became of a message."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fsdf_engine import ArgumentError, ResultTimeout, TaskFailed, current
from fsdf_engine import AsyncResult as EngineResult

from . import states
from .exceptions import (
    NoResultBackend,
    NotRegistered,
    Reject,
    TaskRevokedError,
    TimeLimitExceeded,
    TimeoutError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from .app.base import Celery

__all__ = ["AsyncResult", "RemoteTraceback"]

_ERRORS: Mapping[str, type[BaseException]] = {
    "timedout": TimeLimitExceeded,
    "expired": TaskRevokedError,
    "revoked": TaskRevokedError,
    "unknown": NotRegistered,
    "invalid": ArgumentError,
    "rejected": Reject,
}


class RemoteTraceback(Exception):
    """The worker's traceback, as text: the cause of an error that `get` raises."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class AsyncResult:
    """The result of one message, by its id. Nothing is asked of any server before you ask.

    `backend` and `task_name` are accepted and not needed.
    """

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Celery | None = None,
        parent: Any = None,
        *,
        inner: EngineResult | None = None,
        ignored: bool = False,
    ) -> None:
        if app is None:
            raise TypeError("AsyncResult needs its app in this version; use app.AsyncResult(id)")
        self.id, self.app, self.parent = id, app, parent
        self.ignored = ignored  # nothing is stored about it
        self._inner = inner

    task_id = property(lambda self: self.id, doc="As `id`.")

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *_: Any,
        disable_sync_subtasks: bool = True,
        **options: Any,
    ) -> Any:
        """Block until the task has ended; return its value or raise its exception.

        With propagate=False the exception is returned. Waiting needs no polling, so `interval` and
        its like are accepted and not needed.

        Raises:
            TimeoutError: it has not ended in `timeout` seconds.
            NoResultBackend: nothing keeps results.
            RuntimeError: called inside a task, without disable_sync_subtasks=False.
        """
        if disable_sync_subtasks and current:
            raise RuntimeError(
                "never call result.get() within a task: its slot would wait for another;"
                " disable_sync_subtasks=False insists"
            )
        if self.ignored:
            return None
        source = self._source()
        try:
            return source.get(timeout)
        except ResultTimeout:
            raise TimeoutError("The operation timed out.") from None
        except TaskFailed as failed:
            error = self._error(failed.__cause__)
            text = failed.traceback
        if not propagate:
            return error
        raise error from (RemoteTraceback(text) if text else None)

    wait = get

    def _source(self) -> EngineResult:
        if not self.app.has_results():
            raise NoResultBackend(
                "no result backend is configured: set result_backend, for example"
                ' Celery(..., backend="redis://127.0.0.1:6379/1")'
            )
        if self._inner is None:
            self._inner = self.app.engine_result(self.id)
        return self._inner

    def _error(self, rebuilt: BaseException | None) -> BaseException:
        """Return what the task raised, or Celery's word for how else it ended."""
        told = self._source().info
        status, reason = str(told.get("status")), str(told.get("reason", ""))
        if status == "failed":
            return rebuilt or _unknown(told.get("error") or {}, reason)
        return _ERRORS.get(status, WorkerLostError)(reason)

    @property
    def state(self) -> str:
        """PENDING (also of an id that nobody knows), RETRY, SUCCESS, FAILURE or REVOKED."""
        if self.ignored:
            return states.PENDING
        return states.OF_OUTCOME.get(self._source().status, states.FAILURE)

    status = state

    @property
    def result(self) -> Any:
        """The value, or the exception; None before the end."""
        if self.state == states.SUCCESS:
            return self._source().info.get("result")
        return self.get(0, propagate=False, disable_sync_subtasks=False) if self.ready() else None

    info = result

    @property
    def traceback(self) -> str | None:
        """The worker's traceback as text, of a task that failed."""
        return self._source().info.get("traceback")

    @property
    def name(self) -> str | None:
        """The task's name, once it has ended."""
        return self._source().info.get("task")

    def ready(self) -> bool:
        """Say whether it has ended, in any way."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Say whether it returned."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Say whether it raised, or could not run."""
        return self.state == states.FAILURE

    def maybe_throw(self, propagate: bool = True) -> Any:
        """Raise its exception if it has one by now; otherwise return `result`."""
        if propagate and self.state in states.PROPAGATE_STATES:
            self.get(0, disable_sync_subtasks=False)
        return self.result

    maybe_reraise = throw = maybe_throw

    def forget(self) -> None:
        """Delete what is stored."""
        self._source().forget()

    def revoke(self, connection: Any = None, terminate: bool = False, **options: Any) -> None:
        """Have it not run, if it has not started; see `app.control.revoke`."""
        self.app.control.revoke(self.id, terminate=terminate, **options)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.id}>"

    def __eq__(self, other: object) -> bool:
        return (other.id if isinstance(other, AsyncResult) else other) == self.id

    def __hash__(self) -> int:
        return hash(self.id)


def _unknown(error: Mapping[str, Any], reason: str) -> BaseException:
    """Return an exception of the name of one whose class is not imported here, or cannot be made.

    Where the class is there, the result is an instance of it, so that `except` catches it.
    """
    name = str(error.get("type") or "TaskFailed")
    known = getattr(sys.modules.get(str(error.get("module"))), name, None)
    if isinstance(known, type) and issubclass(known, BaseException):
        made: BaseException = known.__new__(known)
        made.args = tuple(error.get("args", ()))
        return made
    kind = type(name, (Exception,), {"__module__": str(error.get("module") or __name__)})
    remade: BaseException = kind(*error.get("args", (reason,)))
    return remade
