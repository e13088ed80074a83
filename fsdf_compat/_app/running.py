"""A task that is run here: `task.apply`, and what eager calls are."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from kombu import serialization
from kombu.utils.uuid import uuid

from .. import states
from .._upward import upward
from ..exceptions import Retry
from ..result import EagerResult, denied_join_result
from ..utils.functional import maybe_list
from ..utils.nodenames import gethostname

__all__ = ["apply", "apply_eagerly"]


def apply(
    self: Any, args: Any = None, kwargs: Any = None, link: Any = None, link_error: Any = None,
    task_id: str | None = None, retries: int | None = None, throw: bool | None = None,
    logfile: Any = None, loglevel: Any = None, headers: Any = None, **options: Any,
) -> Any:  # fmt: skip
    """Run the task here and now, with its retries, and return its EagerResult.

    With `throw` (by default as `task_eager_propagates` says) what it raises is raised.
    """
    app = self._get_app()
    task_id, retries = task_id or uuid(), retries or 0
    task = app._tasks[self.name]  # the object, where this is the class
    request = _request(self, task_id, retries, options)
    request |= {
        "logfile": logfile, "loglevel": loglevel or 0, "headers": headers,
        "callbacks": maybe_list(link), "errbacks": maybe_list(link_error),
    }  # fmt: skip
    propagate = app.conf.task_eager_propagates if throw is None else throw
    build = upward("app.trace").build_tracer
    tracer = build(task.name, task, eager=True, propagate=propagate, app=app)
    told = tracer(task_id, args or (), kwargs or {}, request)
    value, traceback = told.retval, None
    if isinstance(value, ExceptionInfo):
        value, traceback = value.exception, value.traceback
        value = value.exc if isinstance(value, ExceptionWithTraceback) else value
    if isinstance(value, Retry) and value.sig is not None:
        return value.sig.apply(retries=retries + 1)
    state = states.SUCCESS if told.info is None else told.info.state
    return EagerResult(task_id, value, state, traceback=traceback, name=self.name)


def _request(task: Any, task_id: str, retries: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return the request of an eager run."""
    above = upward("app.task")._task_stack.top
    parent = above.request if above else None
    limits = [task.time_limit, task.soft_time_limit]
    request = {
        "id": task_id,
        "task": task.name,
        "parent_id": parent.id if parent else None,
        "root_id": (parent.root_id if parent else None) or task_id,
        "retries": retries,
        "is_eager": True,
        "hostname": gethostname(),
        "timelimit": None if limits == [None, None] else limits,
        "ignore_result": options.get("ignore_result", task.ignore_result),
        "delivery_info": {
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    }
    if "stamped_headers" in options:
        names = request["stamped_headers"] = maybe_list(options["stamped_headers"])
        request["stamps"] = {name: maybe_list(options.get(name, [])) for name in names}
    return request


def apply_eagerly(
    task: Any, args: Any, kwargs: Any, producer: Any, task_id: str | None, options: dict[str, Any]
) -> Any:
    """Run a call that would be sent, after the way through its serializer."""
    usual = getattr(producer, "serializer", None) or task.app.conf.task_serializer
    kind, encoding, data = serialization.dumps((args, kwargs), options.get("serializer") or usual)
    args, kwargs = serialization.loads(data, kind, encoding, accept=[kind])
    with denied_join_result():
        return task.apply(args, kwargs, task_id=task_id or uuid(), **options)
