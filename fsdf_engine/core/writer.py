"""Calls become messages: bound, given their control data, and encoded. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..contracts import Outgoing
from ..message import Extra, encode, new_id
from .context import current_job
from .pushes import pushed_id

__all__ = ["Writer", "moment", "next_id", "writer"]

Writer: TypeAlias = Callable[..., Outgoing]  # of (args, kwargs, publish time, control data, id)
_Namer: TypeAlias = Callable[[Sequence[Any], Mapping[str, Any]], "tuple[dict[str, Any], list[Any]]"]
_NONE: dict[str, Any] = {}


def writer(name: _Namer, queue: str, task: str, priority: int, address: str) -> Writer:
    """Return what makes one call of a task a message; `address` is where its result is awaited."""

    def write(
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        now: float,
        extra: Extra = _NONE,
        id: str = "",
    ) -> Outgoing:
        data, leading = name(args, kwargs)
        control: Extra = {"task_id": id or next_id(), "publish_time": now}
        if task:
            control["task"] = task
        if leading:
            control["args"] = leading
        if address:
            control["reply"] = address
        if extra:
            control.update(extra)
        body = encode(data, control)
        return Outgoing(queue, control["task_id"], body, None, 0.0, 0.0, priority)

    return write


def moment() -> float:
    """Return the time as messages carry it."""
    return round(time.time(), 4)


def next_id() -> str:
    """Return the id of what is pushed next: a run's pushes have ids that a repeat gives again."""
    job = current_job.get(None)
    return new_id() if job is None else pushed_id(job)
