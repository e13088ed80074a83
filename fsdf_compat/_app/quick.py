"""The short way of a call that says nothing but its arguments, such as `delay`.

What cannot differ between two such calls of a task is decided once, in a `_Way`. It holds for the
settings, queues and routes that it was decided for; each call looks whether they are still the
same, and goes the long way, `app.send_task`, where somebody could see a difference.
"""

from __future__ import annotations

import time
from typing import Any

from kombu.entity import Queue

from fsdf_engine.contracts import Outgoing

from .._ids import new_id
from .._state import _task_stack, get_current_worker_task
from ..app.routes import MapRoute, Router
from . import flat, publishing
from .sending import check_limits, send_task

__all__ = ["sent"]
_LIMITS = ("soft_time_limit", "time_limit")


class _Way:
    """How calls of one task leave; `queue` is empty where they go the long way."""

    revision: Any
    amqp: Any
    router: Any
    routes: Any
    options: Any  # the task's own
    usual: Any
    live: bool  # settings may change without a word
    inherits: Any  # the priority of the run that calls
    name: str
    queue: str  # on which flat messages travel
    queues: Any
    known: Any  # what `queues` has under that name
    limits: Any

    def holds(self) -> bool:
        """Say whether routes and queues are the same; they are lists and dicts of the user's."""
        return self.routes == self.router.routes and self.known is self.queues.get(self.name)


def sent(task: Any, args: Any, kwargs: Any) -> Any:
    """Send a call and return its result; None: nothing was sent, it has to go the long way.

    Raises as `app.send_task` does.
    """
    app, parent = task._get_app(), None
    way = _way_of(task, app)
    if way is None or type(args) not in (tuple, list) or type(kwargs) is not dict:
        return None
    if _task_stack.top is not None and (parent := get_current_worker_task()) and way.inherits:
        return None
    id, ignored = new_id(), task.ignore_result
    backend = None if ignored else app.backend
    extra = _extra(task, way, parent, id, backend)
    data, leading, count = flat.named(task._parameters(), args, kwargs)
    if count:
        extra["positional"] = count
    if leading:
        extra["args"] = leading
    if backend is not None:
        backend.on_task_call(None, id)
    batch = (Outgoing(way.queue, id, flat.encoded(data, extra)),)
    publishing.leave(way.amqp, batch, None, way.usual.retry, way.usual.policy)
    result = task.AsyncResult(id)
    result.ignored = ignored
    if parent:
        parent.add_trail(result)
    return result


def _way_of(task: Any, app: Any) -> _Way | None:
    """Return how the next call of a task leaves; None: the long way."""
    way: _Way = task._way
    conf, amqp = app.conf, app.amqp
    if (
        way is None
        or way.revision is not conf.revision
        or way.amqp is not amqp
        or way.router is not amqp.router
        or way.options is not task._exec_options
        or (way.queue and not way.holds())
    ):
        way = task._way = _decided(task, app)
    if (
        not way.queue
        or (way.live and conf.task_always_eager)
        or amqp.is_watched()
        or getattr(app.send_task, "__func__", None) is not send_task
    ):
        return None
    return way


def _extra(task: Any, way: _Way, parent: Any, id: str, backend: Any) -> dict[str, Any]:
    """Return what a message says beside its arguments."""
    now = time.time()
    extra: dict[str, Any] = {
        "task_id": id,
        "publish_time": now,
        "task": task.name,
        "origin": flat.origin(),
    }
    if backend is not None and backend.native is True and (to := backend.reply_to((id,), now)):
        extra["reply"] = to
    if way.limits:
        extra["limits"] = way.limits
    headers = {"ignore_result": task.ignore_result} if backend is None else {}
    if parent is not None:
        request = parent.request
        headers["parent_id"] = request.id
        headers["root_id"] = request.root_id or request.id
    if headers:
        extra["headers"] = headers
    return extra


def _decided(task: Any, app: Any) -> _Way:
    """Return how calls of a task leave, as things are now."""
    conf, amqp = app.conf.finalize(), app.amqp
    way, router = _Way(), amqp.router
    way.revision, way.amqp, way.router = conf.revision, amqp, router
    way.options, way.usual = task._get_exec_options(), amqp.usual()
    # an object's attributes are read anew each time
    way.live = any(type(each) is not dict for each in conf.maps)
    way.routes = getattr(router, "routes", [])[:]
    way.inherits, way.limits = conf.task_inherit_parent_priority, None
    way.queues, way.known, way.name, way.queue = {}, None, "", ""
    own = task._exec_options
    if way.options is not own or task._dump_pydantic_arguments is not None:
        way.options = own
    elif (way.live or not conf.task_always_eager) and _goes_by_name(router):
        _find(way, task)
    return way


def _goes_by_name(router: Any) -> bool:
    """Say whether where a message goes depends on nothing but its task's name."""
    return type(router) is Router and all(type(each) is MapRoute for each in router.routes)


def _find(way: _Way, task: Any) -> None:
    """Find the queue of a task's messages, if that is all that is to be said of them."""
    said = way.router.route(dict(way.options), task.name, (), {}, task)
    said = {key: value for key, value in said.items() if value is not None}
    queue, soft, hard = (said.pop(key, None) for key in ("queue", *_LIMITS))
    check_limits(hard, soft)
    serializer = said.pop("serializer", way.usual.serializer)
    if said or serializer != "json" or type(queue) is not Queue:
        return
    if getattr(queue.exchange, "type", "direct") == "direct":
        way.queues, way.name = way.router.queues, queue.name
        way.known, way.queue = way.queues.get(queue.name), way.amqp.wire_queue(queue.name)
        way.limits = [soft, hard] if soft or hard else None
