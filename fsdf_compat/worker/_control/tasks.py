"""Commands about tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from billiard.common import TERM_SIGNAME

from ... import states
from ..._app.commands import delayed
from ...platforms import signals as _signals
from ...utils.functional import maybe_list
from ...utils.log import get_logger
from ...utils.time import rate
from .. import state as worker_state
from ..strategy import waiting_request
from .panel import control_command, inspect_command, nok, ok

__all__ = [
    "active", "query_task", "rate_limit", "registered", "reserved", "revoke",
    "revoke_by_stamped_headers", "revoked", "scheduled", "terminate", "time_limit",
]  # fmt: skip
DEFAULT_TASK_INFO_ITEMS = ("exchange", "routing_key", "rate_limit")
MOST = 1000  # messages of a queue that are told of as scheduled
logger = get_logger("celery.worker.control")
# What a task that no worker has ended, and that nobody has begun, may be.
_NOT_BEGUN = {states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED}


def _found(ids: Iterable[str]) -> Iterator[Any]:
    known = worker_state.requests
    yield from (known[id] for id in ids if id in known)


def _state_of(request: Any) -> str:
    kinds = ("active", "reserved", "scheduled")
    in_it = (k for k in kinds if request in getattr(worker_state, f"{k}_requests"))
    return next(in_it, "ready")


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: Any, ids: Any, **kwargs: Any) -> Any:
    """Ask for tasks by their ids."""
    found = _found(maybe_list(ids) or ())
    return {request.id: (_state_of(request), request.info()) for request in found}


@inspect_command(alias="dump_active")
def active(state: Any, safe: bool = False, **kwargs: Any) -> Any:
    """List the tasks that run."""
    return [r.info(safe=safe) for r in state.tset(worker_state.active_requests)]


@inspect_command(alias="dump_reserved")
def reserved(state: Any, **kwargs: Any) -> Any:
    """List the tasks that are here and have not started."""
    waiting = state.tset(worker_state.reserved_requests) - state.tset(worker_state.active_requests)
    return [request.info() for request in waiting]


@inspect_command(alias="dump_schedule")
def scheduled(state: Any, **kwargs: Any) -> Any:
    """List the tasks that wait for their time: in the broker, in the queues that are consumed here.

    Every worker of a queue tells of them. 1,000 of each queue are told of at most.
    """
    here, found = state.consumer, []
    for queue in here.task_queues():
        for item in delayed(state.app, queue.name, MOST):
            if (request := waiting_request(item, here.requests, state.app)) is not None:
                told = {**request.info(), "worker_pid": None}
                eta = request.eta or datetime.fromtimestamp(item.not_before, timezone.utc)
                found.append({"eta": eta.isoformat(), "priority": 6, "request": told})
    return found


@inspect_command(alias="dump_revoked")
def revoked(state: Any, **kwargs: Any) -> Any:
    """List the ids that are revoked."""
    return list(worker_state.revoked)


@inspect_command(
    alias="dump_tasks",
    variadic="taskinfoitems",
    signature="[attr1 [attr2 [... [attrN]]]]",
)
def registered(state: Any, taskinfoitems: Any = None, builtins: bool = False, **kwargs: Any) -> Any:
    """List the registered tasks, with these attributes of theirs."""
    wanted = [
        item
        for item in taskinfoitems or DEFAULT_TASK_INFO_ITEMS
        if isinstance(item, str) and not item.startswith("_")
    ]

    def shown(task: Any) -> str:
        values = {item: getattr(task, item, None) for item in wanted}
        told = [f"{item}={value}" for item, value in values.items() if value is not None]
        return f"{task.name} [{' '.join(told)}]" if told else task.name

    tasks = state.app.tasks
    return [shown(tasks[n]) for n in sorted(tasks) if builtins or not n.startswith("celery.")]


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(
    state: Any, task_id: Any, terminate: bool = False, signal: str | None = None, **kwargs: Any
) -> Any:
    """Have tasks not run that have not started; with `terminate` end those that run."""
    ids = set(maybe_list(task_id) or ())
    worker_state.revoked.update(ids)
    state.app.cancel(ids)  # for workers that start later, too
    for id in ids:
        _mark_revoked(state, id)
    if terminate:
        return _terminate(state, ids, _signals.signum(signal or TERM_SIGNAME))
    logger.info("Tasks flagged as revoked: %s", ", ".join(ids))
    return ok(f"tasks {ids} flagged as revoked")


def _mark_revoked(state: Any, id: str) -> None:
    """Store that a task is revoked which nobody has begun."""
    request = worker_state.requests.get(id)
    if request is not None and request in worker_state.active_requests:
        return
    backend = request.task.backend if request is not None else state.app.backend
    try:
        if backend.get_state(id) in _NOT_BEGUN:
            backend.mark_as_revoked(id, reason="revoked", store_result=True)
    except Exception as error:
        logger.warning("Failed to mark task %s as revoked in backend: %s", id, error)


def _terminate(state: Any, ids: Iterable[str], signum: int) -> Any:
    ended = []
    for request in list(_found(ids)):
        logger.info("Terminating %s (%s)", request.id, signum)
        request.terminate(state.consumer.pool, signal=signum)
        ended.append(request.id)
    return ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")


@control_command(
    variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
)
def terminate(state: Any, signal: str, task_id: Any, **kwargs: Any) -> Any:
    """End tasks that run."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]")
def revoke_by_stamped_headers(
    state: Any, headers: Any, terminate: bool = False, signal: str | None = None, **kwargs: Any
) -> Any:
    """Have tasks with these stamps not run; with `terminate` end those that run."""
    if isinstance(headers, list):
        headers = dict(each.split("=", 1) for each in headers)
    for header, stamps in headers.items():
        known = maybe_list(worker_state.revoked_stamps.get(header) or [])
        worker_state.revoked_stamps[header] = [*known, *maybe_list(stamps)]
    if not terminate:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    signum = _signals.signum(signal or TERM_SIGNAME)
    ended: dict[str, set[Any]] = defaultdict(set)
    for request in list(worker_state.active_requests):
        for header, stamps in headers.items():
            own = maybe_list((getattr(request, "stamps", None) or {}).get(header) or [])
            if found := set(own) & set(maybe_list(stamps)):
                ended[header] |= found
                request.terminate(state.consumer.pool, signal=signum)
    return ok(f"headers {ended} revoked" if ended else f"headers {headers} were not terminated")


@control_command(
    args=[("task_name", str), ("rate_limit", str)],
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> Any:
    """Let a task start so often."""
    try:
        rate(rate_limit)
    except ValueError as error:
        return nok(f"Invalid rate limit string: {error!r}")
    if (task := _task(state, task_name, "Rate limit")) is None:
        return nok("unknown task")
    task.rate_limit = rate_limit
    state.consumer.reset_rate_limits()
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return ok("new rate limit set successfully")


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)],
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(
    state: Any, task_name: Any = None, hard: Any = None, soft: Any = None, **kwargs: Any
) -> Any:
    """Set the limits, in seconds, of a task."""
    if (task := _task(state, task_name, "Change time limit")) is None:
        return nok("unknown task")
    task.soft_time_limit, task.time_limit = soft, hard
    state.consumer.reset_time_limits()
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")


def _task(state: Any, name: str, what: str) -> Any:
    try:
        return state.app.tasks[name]
    except KeyError:
        logger.error("%s attempt for unknown task %s", what, name, exc_info=True)
        return None
