"""`self.request`: what a task can ask about its message. Made when it is asked for."""

from __future__ import annotations

import os
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fsdf_engine import current

if TYPE_CHECKING:
    from .task import Task

__all__ = ["NODE", "Context", "request_of"]
_NOTHING: Any = None  # of any type
NODE = "FSDF_CELERY_NODE"  # the environment variable that tells child processes the worker's name

# Of the run in whose context it is; a run never sees another's.
_request: ContextVar[Context] = ContextVar("fsdf_compat_request")


class Context:
    """A message's facts as attributes; a task may set more.

    Arguments travel by name, so they are in `kwargs`; `args` has those that could not be named.
    """

    called_directly = False
    is_eager = False
    utc = True
    root_id = parent_id = group = group_index = chord = chain = _NOTHING
    callbacks = errbacks = eta = reply_to = origin = _NOTHING

    def __init__(self, task: Task) -> None:
        self._task = task
        self.task = task.name

    @property
    def id(self) -> str:
        """The id of the message."""
        return current.task_id

    correlation_id = id

    @property
    def args(self) -> list[Any]:
        """What could not be given by name."""
        return list(current.args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by name."""
        return current.kwargs

    @property
    def retries(self) -> int:
        """0 for the first attempt."""
        return current.attempt

    @property
    def headers(self) -> dict[str, Any]:
        """What the publisher sent beside the arguments."""
        return current.headers

    @property
    def expires(self) -> float | None:
        """The instant, in Unix seconds, after which it would not have been run."""
        return current.expires or None

    @property
    def hostname(self) -> str:
        """The worker's name."""
        return os.environ.get(NODE) or f"celery@{socket.gethostname()}"

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Where the message came from."""
        return {
            "exchange": "",
            "routing_key": self._task.app.celery_queue(current.queue),
            "priority": self._task.priority,
            "redelivered": current.deliveries > 0,
        }

    @property
    def timelimit(self) -> list[float | None]:
        """The hard and the soft limit in seconds."""
        soft, hard = current.limits
        return [hard or None, soft or None]

    @property
    def ignore_result(self) -> bool:
        """Say whether nothing is stored."""
        return self._task.ignores_result()

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return getattr(self, name, default)

    def __repr__(self) -> str:
        return f"<Context: {self.task}>"


class _Direct(Context):
    """The request of a task that was called as a function."""

    called_directly = True
    id = correlation_id = args = kwargs = headers = _NOTHING
    delivery_info = expires = timelimit = _NOTHING
    retries = 0


def request_of(task: Task) -> Context:
    """Return the request of the run that calls, or that of a direct call."""
    if not current or current.task != task.name:
        return _Direct(task)
    found = _request.get(None)
    if found is None:
        found = Context(task)
        _request.set(found)
    return found
