"""A coroutine in which any exception can be raised, where asyncio itself only cancels."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

__all__ = ["Stepped"]


class Stepped:
    """A coroutine around another one, for a task to run or to await. The loop's thread only."""

    __slots__ = ("_error", "_run", "_task")

    def __init__(self, run: Coroutine[Any, Any, Any]) -> None:
        self._run = run
        self._error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None  # that is cancelled, to make it step

    def interrupt(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """Raise `error` at its task's next step, which comes soon: what it waits for is cancelled.

        Does nothing when the task is done.
        """
        if task.cancel():
            self._task, self._error = task, error

    def __await__(self) -> Iterator[Any]:
        return self

    def __iter__(self) -> Stepped:
        return self

    def __next__(self) -> Any:
        return self._run.send(None) if self._error is None else self._raise(self._error)

    def send(self, value: Any) -> Any:
        """Go on; asyncio sends nothing but None."""
        return self.__next__()

    def throw(self, *error: Any) -> Any:
        """Raise what the task raises here, which for ours is its cancellation."""
        return self._run.throw(*error) if self._error is None else self._raise(self._error)

    def close(self) -> None:
        """Let the coroutine go."""
        self._run.close()

    def _raise(self, error: BaseException) -> Any:
        self._error = None
        if self._task and sys.version_info >= (3, 11):
            self._task.uncancel()  # it was none: timeouts and groups inside count them
        return self._run.throw(error)
