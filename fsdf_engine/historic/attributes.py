"""What a decorated function had in the old framework beside what a task has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import NotYetSupported
from . import find

if TYPE_CHECKING:
    from ..task import Task
    from .clients import QueueConsumer, QueuePublisher

__all__ = ["ATTRIBUTES", "attribute", "clear_filter_tasks", "init_params", "result_hint"]


def attribute(task: Task[..., Any], name: str, of_function: Callable[[str], Any]) -> Any:
    """Return an attribute of the task's function, else what the old framework gave the function.

    Raises:
        AttributeError: there is neither.
    """
    try:
        return of_function(name)
    except AttributeError:
        if name not in ATTRIBUTES:
            raise
    return ATTRIBUTES[name](task)


def result_hint(name: str) -> str:
    """Return what to say instead of an attribute that results had in the old framework, or ""."""
    return f"; say {_OF_RESULTS[name]}" if name in _OF_RESULTS else ""


def init_params(task: Task[..., Any]) -> dict[str, Any]:
    """Return the queue and the options that differ from their defaults."""
    options = task.options
    given = {f.name: (getattr(options, f.name), f.default) for f in dataclasses.fields(options)}
    changed = {name: value for name, (value, default) in given.items() if value != default}
    return {"queue_name": task.queue, **changed}


def clear_filter_tasks(task: Task[..., Any]) -> None:
    """Raise NotYetSupported: filtering by arguments comes in a later version."""
    raise NotYetSupported(
        f"clear_filter_tasks() of queue {task.queue!r}: filtering by arguments"
        " (do_task_filtering) comes in a later version, so there is nothing to clear"
    )


def _publisher(task: Task[..., Any]) -> QueuePublisher:
    return find("QueuePublisher").of(task)  # type: ignore[no-any-return]


def _consumer(task: Task[..., Any]) -> QueueConsumer:
    return find("QueueConsumer").of(task)  # type: ignore[no-any-return]


def _wait(task: Task[..., Any]) -> Callable[..., bool]:
    return _consumer(task).wait_for_possible_has_finish_all_tasks


# Name -> its value, given the task. Tasks import this module, so it finds the forms by name.
ATTRIBUTES: Mapping[str, Callable[[Task[..., Any]], Any]] = {
    "apply_async": lambda task: task.publish,
    "clear_filter_tasks": lambda task: lambda: clear_filter_tasks(task),
    "consumer": _consumer,
    "init_params": init_params,
    "is_decorated_as_consume_function": lambda task: True,
    "multi_process_pub_params_list": lambda task: (
        lambda calls, process_num=1: task.push_many(calls)
    ),
    "multi_process_start": lambda task: task.multi_process_consume,
    "publisher": _publisher,
    "queue_name": lambda task: task.queue,
    "wait_for_possible_has_finish_all_tasks": _wait,
}
_OF_RESULTS = {
    "is_pending": "`not result.ready()`",
    "is_success": '`result.status == "succeeded"`',
    "set_callback": "`result.get()` in a thread of yours, or `await result`",
    "set_timeout": "`result.get(timeout=...)`",
    "status_and_result": "`result.info`, with the keys `status` and `result`",
}
