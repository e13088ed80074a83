"""Tasks that ask now and then whether they shall end.

A caller asks for it by `result.abort()`, which stores a state; a task looks by `self.is_aborted()`.
It needs a result backend.
"""

from __future__ import annotations

from typing import Any

from ..app.task import Task
from ..result import AsyncResult

__all__ = ["ABORTED", "AbortableAsyncResult", "AbortableTask"]
ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult):
    """The result of such a task."""

    def is_aborted(self) -> bool:
        """Say whether it was asked to end."""
        return self.state == ABORTED

    def abort(self) -> Any:
        """Ask it to end; it is the task's own matter whether and when it does."""
        return self.backend.store_result(self.id, result=None, state=ABORTED, traceback=None)


class AbortableTask(Task):
    """The base of such a task."""

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:
        """Return the result of a message of this task."""
        return AbortableAsyncResult(task_id, backend=self.backend, **kwargs)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Say whether this run was asked to end: a look into the backend each time."""
        result = self.AsyncResult(kwargs.get("task_id", self.request.id))
        return isinstance(result, AbortableAsyncResult) and result.is_aborted()
