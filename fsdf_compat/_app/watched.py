"""A message in Celery's own form on its way out, where somebody looks at it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from kombu.common import Broadcast
from kombu.exceptions import OperationalError
from kombu.utils.functional import retry_over_time

from .. import signals
from . import publishing

__all__ = [
    "callback_publish_max_retries", "callback_publish_retry", "retry_publish",
    "send_task_message", "target",
]  # fmt: skip
logger = logging.getLogger("celery.app.amqp")
CALLBACK_RETRIES = 3
callback_publish_retry: ContextVar[bool] = ContextVar("_callback_publish_retry", default=False)


class _Target(NamedTuple):
    """Where a message goes, in the words of AMQP; `name` is the queue's, if there is one."""

    exchange: Any
    routing_key: Any
    name: Any
    queue: Any


def send_task_message(
    self: Any, producer: Any, name: str, message: Any, exchange: Any = None,
    routing_key: Any = None, queue: Any = None, event_dispatcher: Any = None,
    retry: bool | None = None, retry_policy: Any = None, serializer: str | None = None,
    delivery_mode: Any = None, compression: Any = None, declare: Any = None,
    headers: Any = None, exchange_type: Any = None, timeout: Any = None,
    confirm_timeout: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Publish a message of Celery's form, and tell receivers of signals before and after.

    A producer that is not kombu's own publishes it as it is; any other one says to which broker.
    """
    told, properties, body = message[:3]
    told.update(headers or {})
    properties.update(kwargs)
    usual = self.usual()
    target = self.target(queue, exchange, routing_key, exchange_type)
    declare = _declared(target) if declare is None else declare
    policy = {**usual.policy, **(retry_policy or {})}
    way = {"exchange": target.exchange, "routing_key": target.routing_key}
    again = {"retry": usual.retry if retry is None else retry, "retry_policy": policy}
    signals.before_task_publish.send(
        sender=name, body=body, declare=declare, headers=told, properties=properties,
        retry_policy=policy, **way,
    )  # fmt: skip
    serializer = serializer or usual.serializer
    if publishing.takes_flat(producer):
        answer = None
        _send_flat(self, producer, name, message, target, again, serializer)
    else:
        answer = _publish(
            producer, name, usual.policy, body, serializer=serializer, declare=declare,
            headers=told, timeout=timeout,
            compression=compression or self.app.conf.task_compression,
            delivery_mode=delivery_mode or _delivery_mode(self, target),
            confirm_timeout=confirm_timeout, **way, **again, **properties,
        )  # fmt: skip
    signals.after_task_publish.send(sender=name, body=body, headers=told, **way)
    _tell(self, producer, name, message, event_dispatcher, target, again)
    return answer


def _declared(target: _Target) -> list[Any] | None:
    """Return what is declared with a message: its queue, but not that of every worker."""
    queue = target.queue
    return [queue] if queue and not isinstance(queue, Broadcast) else None


def _publish(producer: Any, name: str, usual: Mapping[str, Any], body: Any, **message: Any) -> Any:
    """Let a foreign producer publish; what follows a run is tried again, each message by itself."""
    if not (message["retry"] and callback_publish_retry.get()):
        return producer.publish(body, **message)
    policy, connection = message["retry_policy"], producer.connection
    most = callback_publish_max_retries(policy, usual)

    def again(error: BaseException, intervals: Iterator[float], retries: int) -> float:
        if retries == 0 and policy.get("max_retries") is None:
            logger.warning(
                "Unbounded max_retries for worker callback %r; using %s retries instead.",
                name, most,
            )  # fmt: skip
        producer.revive(connection)
        wait = next(intervals)
        logger.warning(
            "Retrying refused callback publish for %r (%s/%s, waiting %ss): %r",
            name, retries + 1, most, wait, error,
        )  # fmt: skip
        return wait

    given = policy.get("retry_errors") or ()
    errors = (OperationalError, *connection.recoverable_connection_errors, *given)
    try:
        return retry_over_time(
            producer.publish, errors, (body,), {**message, "retry": False}, again, most,
            interval_start=policy.get("interval_start", 0),
            interval_step=policy.get("interval_step", 0.2),
            interval_max=policy.get("interval_max", 1),
        )  # fmt: skip
    except Exception as error:
        logger.warning("Giving up refused callback publish for %r: %r", name, error)
        raise


def callback_publish_max_retries(policy: Mapping[str, Any], usual: Mapping[str, Any]) -> int:
    """Return how often what follows a run is tried again: never without end."""
    for each in (policy, usual):
        if (most := each.get("max_retries", CALLBACK_RETRIES)) is not None:
            return int(most)
    return CALLBACK_RETRIES


def retry_publish(self: Any, publish: Any, *args: Any, **kwargs: Any) -> Any:
    """Call what publishes something that follows a run."""
    if self.app.conf.task_always_eager:
        return publish(*args, **kwargs)
    token = callback_publish_retry.set(True)
    try:
        return publish(*args, **kwargs)
    finally:
        callback_publish_retry.reset(token)


def target(self: Any, queue: Any, exchange: Any, routing_key: Any, kind: str | None) -> _Target:
    """Return where a message goes: a direct exchange is the queue itself."""
    name = queue
    if queue is None and exchange is None:
        queue = self.default_queue
    if isinstance(queue, str):
        queue = self.queues[queue]
    elif queue is not None:
        name = queue.name
    of_queue = getattr(queue, "exchange", None)
    kind = kind or getattr(of_queue, "type", None) or "direct"
    if (not exchange or not routing_key) and kind == "direct":
        return _Target("", name if name is not None else queue.name, name, queue)
    if exchange is None:
        exchange = queue.exchange.name or self.default_exchange
        routing_key = routing_key or queue.routing_key or self.app.conf.task_default_routing_key
    return _Target(exchange, routing_key, name, queue)


def _delivery_mode(amqp: Any, target: _Target) -> Any:
    exchange = getattr(target.queue, "exchange", None)
    mode = getattr(exchange, "delivery_mode", None)
    return mode or amqp.app.conf.task_default_delivery_mode


def _send_flat(
    amqp: Any, producer: Any, name: str, message: Any, target: _Target, again: Any, serializer: str
) -> None:
    headers, properties = message[:2]
    if properties.get("reply_to") == amqp.app.thread_oid:
        properties = {k: v for k, v in properties.items() if k != "reply_to"}
    message = (headers, properties, *message[2:])
    url = publishing.place_of(amqp, producer)
    names = publishing.queues_of(amqp, target.queue, target.exchange, target.routing_key)
    task = publishing.task_of(amqp.app, name)
    eta, priority = headers.get("eta"), properties.get("priority")
    batch = publishing.outgoing(amqp, task, message, names, 0, eta, priority, serializer, url)
    publishing.leave(amqp, batch, url, again["retry"], again["retry_policy"])


def _tell(
    amqp: Any, producer: Any, name: str, message: Any, dispatcher: Any, target: _Target, again: Any
) -> None:
    """Tell of a message that has left: the old signal, and those who monitor."""
    headers, _, body, event = message
    if signals.task_sent.receivers:
        told = {**headers, **body} if isinstance(body, dict) else headers
        args, kwargs = (body["args"], body["kwargs"]) if isinstance(body, dict) else body[:2]
        signals.task_sent.send(
            sender=name, task=name, task_id=told["id"], args=args, kwargs=kwargs,
            eta=told["eta"], taskset=told["group"],
        )  # fmt: skip
    if event and (dispatcher := dispatcher or amqp._event_dispatcher):
        exchange = getattr(target.exchange, "name", target.exchange)
        event.update(queue=target.name, exchange=exchange, routing_key=target.routing_key)
        with amqp.app.producer_or_acquire(producer) as sender:
            dispatcher.publish("task-sent", event, sender, **again)
