"""`app.send_task`: what is said of one call becomes a message, and leaves."""

from __future__ import annotations

import inspect
import logging
import numbers
import warnings
from typing import TYPE_CHECKING, Any

from fsdf_engine import seconds_of

from .._engine import steps
from .._ids import new_id, text_id
from ..exceptions import AlwaysEagerIgnored
from ..utils.functional import maybe_list
from . import messages, publishing

if TYPE_CHECKING:
    from .._result.single import AsyncResult

__all__ = ["check_limits", "send_task"]

logger = logging.getLogger("celery.app.base")
_OMITTED: Any = object()
_EAGER = AlwaysEagerIgnored("task_always_eager has no effect on send_task")
_LATE = """\
%s has an expiration date in the past (%ss ago).
It is sent as one that expires now, and will not be run. If that is not what was meant, look at the
code that has sent it."""


def send_task(
    self: Any, name: str, args: Any = None, kwargs: Any = None, countdown: Any = None,
    eta: Any = None, task_id: str | None = None, producer: Any = None, connection: Any = None,
    router: Any = None, result_cls: Any = None, expires: Any = _OMITTED, publisher: Any = None,
    link: Any = None, link_error: Any = None, add_to_parent: bool = True, group_id: Any = None,
    group_index: Any = None, retries: int = 0, chord: Any = None, reply_to: Any = None,
    time_limit: Any = _OMITTED, soft_time_limit: Any = _OMITTED, root_id: Any = None,
    parent_id: Any = None, route_name: str | None = None, shadow: Any = None, chain: Any = None,
    task_type: Any = None, replaced_task_nesting: int = 0, **options: Any,
) -> AsyncResult:  # fmt: skip
    """Send a call by the task's name, which need not be known here; returns once it is stored.

    `countdown` seconds from now, or at `eta` (a datetime or ISO text), it may run; after `expires`
    (seconds, a datetime or ISO text) it may no more. `queue`, or `exchange` and `routing_key`, say
    where it goes, before the routes do. Further options are properties of the message.

    Raises TypeError for arguments or an id of a wrong type, ValueError for times or limits that are
    none, kombu's EncodeError for values without JSON form, its OperationalError without a broker.
    """
    if task_type is None:  # a task has seen to that itself
        task_type, options = _with_defaults(self, name, options)
    bounds = _bounds(options, time_limit, soft_time_limit, expires)
    call = {
        "countdown": countdown, "eta": eta, "group_id": group_id, "group_index": group_index,
        "retries": retries, "chord": chord, "callbacks": maybe_list(link),
        "errbacks": maybe_list(link_error), "reply_to": reply_to, "shadow": shadow,
        "chain": chain, "root_id": root_id, "parent_id": parent_id,
        "ignore_result": options.pop("ignore_result", None),
        "replaced_task_nesting": replaced_task_nesting, **bounds,
    }  # fmt: skip
    task_id, producer = text_id(task_id) if task_id else new_id(), producer or publisher
    router = router or self.amqp.router
    options = router.route(options, route_name or name, args, kwargs, task_type)
    parent = _parent(self, call, options) if add_to_parent or not (root_id and parent_id) else None
    _send(self, name, task_type, task_id, (args, kwargs), call, options, producer, connection)
    result = (result_cls or self.AsyncResult)(task_id)
    result.ignored = call["ignore_result"]
    if add_to_parent and parent:
        parent.add_trail(result)
    return result


def _bounds(options: dict[str, Any], hard: Any, soft: Any, expires: Any) -> dict[str, Any]:
    """Return limits and expiry: as given, None too, else as the options have them.

    Raises:
        ValueError: a limit is none.
    """
    pop = options.pop
    usual = pop("time_limit", None), pop("soft_time_limit", None), pop("expires", None)
    hard = usual[0] if hard is _OMITTED else hard
    soft = usual[1] if soft is _OMITTED else soft
    check_limits(hard, soft)
    return {
        "time_limit": hard,
        "soft_time_limit": soft,
        "expires": usual[2] if expires is _OMITTED else expires,
    }


def check_limits(hard: Any, soft: Any) -> None:
    """Refuse the limits of a call that a worker would refuse; None and 0 are no limits.

    Raises:
        ValueError: names the one that is wrong.
    """
    for name, given in (("time_limit", hard), ("soft_time_limit", soft)):
        if given is not None:
            seconds_of(name, given, ValueError, given)
    if hard and soft and soft > hard:
        raise ValueError(f"soft_time_limit={soft!r}: give no more than time_limit={hard!r}")


def _with_defaults(app: Any, name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the task and the options, with those that it has where it is sent by its name.

    The app is not finalized for that: what is not there yet is a task of elsewhere.
    """
    if app.conf.task_always_eager:
        warnings.warn(_EAGER, stacklevel=3)
    task = publishing.task_of(app, name)
    defaults = getattr(task, "_get_exec_options", None)
    if inspect.ismethod(defaults):
        known = {key: value for key, value in defaults().items() if value is not None}
        options = {**known, **options}
    return task, options


def _parent(app: Any, call: dict[str, Any], options: dict[str, Any]) -> Any:
    """Return the task in whose run a call is made; fill in from which run it comes."""
    parent = app.current_worker_task
    if parent and not (call["root_id"] and call["parent_id"]):
        request = parent.request
        call["root_id"] = call["root_id"] or request.root_id or request.id
        call["parent_id"] = call["parent_id"] or request.id
        if app.conf.task_inherit_parent_priority:
            options.setdefault("priority", (request.delivery_info or {}).get("priority"))
    return parent


def _send(
    app: Any, name: str, task: Any, task_id: str, arguments: Any, call: dict[str, Any],
    options: dict[str, Any], producer: Any, connection: Any,
) -> None:  # fmt: skip
    amqp = app.amqp
    if call["expires"] is not None:
        options["expiration"] = _seconds_left(app, task_id, call["expires"])
    if connection is None and publishing.takes_flat(producer) and not amqp.is_watched():
        publishing.send_plainly(amqp, name, task, task_id, arguments, call, options, producer)
        return
    message = _message(app, name, task_id, arguments, call, options)
    for stamp in options.pop("stamped_headers", None) or ():
        options.pop(stamp)
    if connection:
        producer = amqp.Producer(connection, auto_declare=False)
    if producer is None and not amqp.wants_producer():
        _send_watched(app, None, name, message, call, task_id, options)
        return
    with (
        app.producer_or_acquire(producer) as acquired,
        acquired.connection._reraise_as_library_errors(),
    ):
        _send_watched(app, acquired, name, message, call, task_id, options)


def _send_watched(
    app: Any, producer: Any, name: str, message: Any, call: Any, task_id: str, options: Any
) -> None:
    if not call["ignore_result"]:
        app.backend.on_task_call(producer, task_id)
    app.amqp.send_task_message(producer, name, message, **options)


def _message(
    app: Any, name: str, task_id: str, arguments: Any, call: dict[str, Any], options: Any
) -> Any:
    """Return a call in Celery's form."""
    return app.amqp.create_task_message(
        task_id, name, *arguments, call["countdown"], call["eta"], call["group_id"],
        call["group_index"], call["expires"], call["retries"], call["chord"], call["callbacks"],
        call["errbacks"], call["reply_to"] or app.thread_oid, call["time_limit"],
        call["soft_time_limit"], app.conf.task_send_sent_event, call["root_id"],
        call["parent_id"], call["shadow"], steps.opened(call["chain"]),
        ignore_result=call["ignore_result"],
        replaced_task_nesting=call["replaced_task_nesting"], **options,
    )  # fmt: skip


def _seconds_left(app: Any, task_id: str, expires: Any) -> Any:
    """Return for how many seconds a message is of use."""
    left = expires
    if not isinstance(expires, numbers.Real):
        left = messages.instant("expires", expires) - app.now().timestamp()
    if left < 0:
        logger.warning(_LATE, task_id, -left)
        return 0
    return left
