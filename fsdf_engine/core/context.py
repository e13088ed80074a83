"""What a running task can ask about itself: `current.task_id`, `current.attempt`, ..."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from ..contracts import Job
from ..errors import FsdfError

__all__ = ["current", "current_job"]

current_job: ContextVar[Job] = ContextVar("fsdf_job")


class _Current:
    """The message that the calling code runs for. Outside a run every attribute raises."""

    __slots__ = ()

    def _job(self) -> Job:
        try:
            return current_job.get()
        except LookupError:
            raise FsdfError(
                "no task is running here; `current` can be used inside a task only"
            ) from None

    def __bool__(self) -> bool:
        return current_job.get(None) is not None

    @property
    def task_id(self) -> str:
        """The id that `push` returned, or one derived from a bare message."""
        return self._job().id

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self._job().plan.queue

    @property
    def task(self) -> str:
        """The task's name; empty for the only task of a queue."""
        return self._job().plan.name

    @property
    def args(self) -> tuple[Any, ...]:
        """What the function is called with by position; most arguments travel by name."""
        return tuple(self._job().args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """What the function is called with by name."""
        return dict(self._job().kwargs)

    @property
    def expires(self) -> float:
        """The instant after which the message would not have been run; 0.0 for none."""
        return float(self._job().extra.get("expires", 0.0))

    @property
    def attempt(self) -> int:
        """0 for the first attempt, 1 for the first retry, ..."""
        return self._job().attempt

    @property
    def deliveries(self) -> int:
        """How many workers lost this message before."""
        return self._job().delivery.deliveries

    @property
    def publish_time(self) -> float:
        """Unix seconds; 0.0 where the message does not say."""
        return self._job().published_at

    @property
    def headers(self) -> dict[str, Any]:
        """What the publisher sent beside the arguments."""
        return dict(self._job().extra.get("headers", {}))

    def __repr__(self) -> str:
        job = current_job.get(None)
        return f"<current task {job.id}>" if job else "<no current task>"


current = _Current()
