"""`EagerResult`: of a call that was made here."""

from __future__ import annotations

from typing import Any

from vine import Thenable, promise

from .. import states
from .._upward import LateModule
from ..exceptions import TaskRevokedError
from .single import AsyncResult

__all__ = ["EagerResult"]
_public = LateModule("result")


@Thenable.register
class EagerResult(AsyncResult):
    """The result of a call that was made here: it has ended."""

    backend = None

    def __init__(
        self, id: Any, ret_value: Any, state: Any, traceback: Any = None, name: Any = None
    ) -> None:
        self.id = id
        self._result, self._state, self._traceback, self._name = ret_value, state, traceback, name
        self.on_ready = promise()
        self.on_ready(self)

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Have a function called with it."""
        return self.on_ready.then(callback, on_error)

    @property
    def _cache(self) -> Any:
        return {
            "task_id": self.id, "result": self._result, "status": self._state,
            "traceback": self._traceback, "name": self._name,
        }  # fmt: skip

    def _get_task_meta(self) -> Any:
        return self._cache

    def ready(self) -> bool:
        """It is."""
        return True

    def get(  # type: ignore[override]
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Return its value, or raise its exception."""
        if disable_sync_subtasks:
            _public.assert_will_not_block()
        if self.successful():
            return self.result
        if self.state not in states.PROPAGATE_STATES:
            return None
        if propagate:
            raise self.result if isinstance(self.result, Exception) else Exception(self.result)
        return self.result

    wait = get  # type: ignore[assignment]

    def forget(self) -> None:
        """Nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Let it be revoked from now on: its value is a TaskRevokedError."""
        self._state, self._traceback = states.REVOKED, None
        self._result = TaskRevokedError("revoked")

    @property
    def result(self) -> Any:
        """The value or the exception."""
        return self._result

    @property
    def state(self) -> Any:
        """How it has ended."""
        return self._state

    status = state

    @property
    def traceback(self) -> Any:
        """The traceback as text."""
        return self._traceback

    @property
    def supports_native_join(self) -> bool:
        """No: there is nothing to wait for."""
        return False

    def __reduce_args__(self) -> Any:
        return self.id, self._result, self._state, self._traceback, self._name

    def __copy__(self) -> Any:
        return self.__class__(*self.__reduce_args__())

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"
