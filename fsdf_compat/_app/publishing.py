"""How messages leave: through the engine, to the queues that kombu's declarations name."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from kombu.common import Broadcast
from kombu.messaging import Producer

from fsdf_engine import Unavailable
from fsdf_engine.contracts import Outgoing

from .._engine.errors import RAISED, translated
from .._engine.places import rank
from .._engine.run import current_run
from ..exceptions import ImproperlyConfigured
from ..signals import after_task_publish
from . import flat, messages
from .places import broker_of
from .repeating import again

__all__ = [
    "collecting", "leave", "outgoing", "place_of", "placed", "queues_of", "send_plainly",
    "takes_flat", "task_of", "together",
]  # fmt: skip

AT_ONCE = 500  # messages that leave together
WITHIN = 0.02  # seconds: what a slow generator gives leaves as it comes
_collected: ContextVar[list[Outgoing] | None] = ContextVar("celery_outgoings", default=None)
_together: ContextVar[_Together | None] = ContextVar("celery_together", default=None)


@contextmanager
def collecting() -> Any:
    """Have what is published meanwhile, here, appended to a list instead of sent."""
    outgoings: list[Outgoing] = []
    token = _collected.set(outgoings)
    try:
        yield outgoings
    finally:
        _collected.reset(token)


class _Together:
    """Messages that are to leave together, as long as they go the same way."""

    def __init__(self) -> None:
        self._batch: list[Outgoing] = []
        self._way: Any = None
        self._since = -WITHIN  # the first one leaves at once

    def add(self, batch: Sequence[Outgoing], way: Any) -> None:
        if self._batch and way != self._way:
            self.leave()
        self._batch += batch
        self._way = way
        if len(self._batch) >= AT_ONCE or time.monotonic() - self._since > WITHIN:
            self.leave()

    def leave(self) -> None:
        """Publish what there is. Blocks."""
        batch, self._batch = self._batch, []
        if batch:
            amqp, url, retry, policy = self._way
            _publish(amqp, batch, url, retry, policy)
        self._since = time.monotonic()


@contextmanager
def together(amqp: Any) -> Iterator[None]:
    """Have what is published meanwhile, here, leave in few round trips, in order; not on an error.

    Raises:
        kombu.exceptions.OperationalError: some of them are not there, or perhaps not.
    """
    if _together.get() is not None or after_task_publish.receivers:  # who are told one by one
        yield
        return
    waiting = _Together()
    token = _together.set(waiting)
    try:
        yield
    finally:
        _together.reset(token)
    waiting.leave()


def takes_flat(producer: Any) -> bool:
    """Say whether a producer is kombu's own: then it only says to which broker a message goes."""
    if producer is None:
        return True
    own = getattr(getattr(producer, "publish", None), "__func__", None)
    return isinstance(producer, Producer) and own is Producer.publish


def place_of(amqp: Any, producer: Any) -> Any:
    """Return the URL of a producer's broker; None: the app's own."""
    connection = getattr(producer, "connection", None)
    if connection is None or connection is amqp.own_connection():
        return None
    url = connection.as_uri(include_password=True)
    return None if url == amqp.own_connection().as_uri(include_password=True) else url


def task_of(app: Any, name: str) -> Any:
    """Return a task that is registered already, or None."""
    try:
        return app._tasks[name]
    except KeyError:
        return None


def send_plainly(
    amqp: Any, name: str, task: Any, task_id: str, arguments: Any, call: dict[str, Any],
    options: dict[str, Any], producer: Any,
) -> None:  # fmt: skip
    """Publish a call that nobody looks at. Blocks."""
    usual = amqp.usual()
    arguments = messages.checked(*arguments)
    eta, expires = messages.moments(
        amqp, call["countdown"], call["eta"], call["expires"], None, lambda: amqp.app.timezone
    )
    headers = {
        "id": task_id, "task": name, "root_id": call["root_id"], "retries": call["retries"],
        "timelimit": (call["time_limit"], call["soft_time_limit"]), "expires": expires,
        "ignore_result": call["ignore_result"],
        "replaced_task_nesting": call["replaced_task_nesting"],
    }  # fmt: skip
    for key, header in _HEADERS:
        if call[key] is not None:
            headers[header] = call[key]
    if eta and not (call["retries"] and call["countdown"]):  # a retry is as its message was
        headers["eta"] = eta
    way, properties = _split(headers, options)
    if call["reply_to"]:
        properties["reply_to"] = call["reply_to"]
    url = None if producer is None else place_of(amqp, producer)
    message = headers, properties, (*arguments, {k: call[k] for k in _LINKS if call[k] is not None})
    batch = outgoing(
        amqp, task, message, _named_queues(amqp, way), call["countdown"] or 0, eta,
        properties.get("priority"), way.get("serializer") or usual.serializer, url,
    )  # fmt: skip
    if not call["ignore_result"]:
        amqp.app.backend.on_task_call(producer, task_id)
    retry, policy = way.get("retry"), way.get("retry_policy")
    policy = {**usual.policy, **policy} if policy else usual.policy
    leave(amqp, batch, url, usual.retry if retry is None else retry, policy)


_HEADERS = (
    ("group_id", "group"), ("group_index", "group_index"), ("parent_id", "parent_id"),
    ("shadow", "shadow"),
)  # fmt: skip
_LINKS = ("callbacks", "errbacks", "chain", "chord")
# What says how a message is published; everything else is a property or a header of it.
_WAY = frozenset({
    "compression", "confirm_timeout", "declare", "delivery_mode", "event_dispatcher", "exchange",
    "exchange_type", "immediate", "mandatory", "queue", "retry", "retry_policy", "routing_key",
    "serializer", "timeout",
})  # fmt: skip
_TOLD = ("argsrepr", "kwargsrepr", "origin")


def _split(headers: dict[str, Any], options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return how a message is published, and its properties; its headers go to `headers`."""
    way, properties = {}, {}
    for key, value in options.items():
        if value is None:
            continue
        if key in _WAY:
            way[key] = value
        elif key in _TOLD:
            headers[key] = value
        elif key not in ("headers", "stamped_headers"):
            properties[key] = value
    if stamped := options.get("stamped_headers"):
        headers["stamped_headers"] = stamped
        headers["stamps"] = {name: properties.pop(name) for name in stamped}
    if given := options.get("headers"):
        headers.update(given)
    return way, properties


def _named_queues(amqp: Any, way: dict[str, Any]) -> list[str]:
    """Return the names of the queues that a message goes to."""
    queue, exchange, key = way.get("queue"), way.get("exchange"), way.get("routing_key")
    kind = way.get("exchange_type") or getattr(getattr(queue, "exchange", None), "type", "direct")
    if queue is not None and kind == "direct" and not (exchange and key):
        return [queue if isinstance(queue, str) else queue.name]
    target = amqp.target(queue, exchange, key, kind)
    return queues_of(amqp, target.queue, target.exchange, target.routing_key)


def _reply(app: Any, headers: dict[str, Any], id: str) -> str:
    """Return where the result is to be told of: as before, for what goes on under the same id."""
    if headers.get("ignore_result"):
        return ""
    if (run := current_run.get()) is not None and run.job.id == id:
        return run.job.extra.get("reply") or ""
    if headers.get("retries"):
        return ""
    backend = app.backend
    if getattr(backend, "native", False) is not True:
        return ""
    address: str = backend.reply_to((id,), time.time())
    return address


def outgoing(
    amqp: Any, task: Any, message: Any, queues: Sequence[str], delay: float, eta: Any,
    priority: int | None, serializer: str, url: Any,
) -> list[Outgoing]:  # fmt: skip
    """Return what a message becomes for the engine, once for each queue that it goes to."""
    headers = message[0]
    id = headers.get("id") or message[1]["correlation_id"]
    body = flat.written(task, message, _reply(amqp.app, headers, id), serializer)
    if number := headers.get("retries"):
        id = f"{id}:{number}"  # the message of the attempt before may still be there
    later = float(delay) if delay > 0 else 0.0
    moment = messages.instant("eta", eta) if eta and not later else 0.0
    place = rank(url or amqp.usual().url, priority) if priority else 0
    return [
        Outgoing(amqp.wire_queue(name), f"{id}:{n}" if n else id, body, None, later, moment, place)
        for n, name in enumerate(queues)
    ]


def queues_of(amqp: Any, queue: Any, exchange: Any, routing_key: Any) -> list[str]:
    """Return the names of the queues that a message goes to.

    An exchange is what the app's queues say of it; where none is bound so, the message waits in the
    queue of the routing key's name: it is not lost.

    Raises:
        ImproperlyConfigured: every worker was to have a copy of it.
    """
    if isinstance(queue, Broadcast):
        raise ImproperlyConfigured(
            f"queue {queue.name!r} is a Broadcast, which needs an exchange of a real broker;"
            " send to each worker's own queue instead"
        )
    name = getattr(exchange, "name", exchange)
    if not name:
        return [routing_key]
    bound = [
        q.name
        for q in amqp.queues.values()
        if q.exchange is not None and q.exchange.name == name and _fits(q, routing_key or "")
    ]
    return bound or [routing_key or name]


def _fits(queue: Any, key: str) -> bool:
    """Say whether a message of this routing key reaches a queue through its exchange."""
    kind, pattern = queue.exchange.type, queue.routing_key or ""
    if kind == "fanout":
        return True
    if kind != "topic":
        return pattern == key
    regex = fnmatch.translate(pattern.replace("#", "*"))
    words = regex if "#" in pattern else re.escape(pattern).replace(r"\*", r"[^.]+") + r"\Z"
    return re.match(words, key) is not None


def leave(amqp: Any, batch: Sequence[Outgoing], url: Any, retry: bool, policy: Any) -> None:
    """Publish, or add to what is collected here for the app's broker. Blocks until it is there.

    Where it cannot be reached that is tried again as `policy` says, within the time that a
    connection may take.

    Raises:
        kombu.exceptions.OperationalError: it is not there, or perhaps not.
        ImproperlyConfigured: a setting of its broker is wrong.
    """
    if url is None and (collected := _collected.get()) is not None:
        collected.extend(batch)
        return
    if (waiting := _together.get()) is not None:
        waiting.add(batch, (amqp, url, retry, policy))
        return
    _publish(amqp, batch, url, retry, policy)


def _publish(amqp: Any, batch: Sequence[Outgoing], url: Any, retry: bool, policy: Any) -> None:
    begun = time.monotonic()
    try:
        publisher = amqp.publisher(url)
        try:
            publisher.publish(batch)
        except Unavailable as error:
            if not retry:
                raise
            again(amqp.app, partial(publisher.publish, batch), error, begun, policy)
    except RAISED as error:
        raise translated(error) from error


def placed(app: Any, url: Any) -> Any:
    """Return the engine's publisher of a broker given by Celery's URL."""
    return app.engine.publisher(broker_of(app, url))
