"""Chords of backends that cannot count: a task that looks whether the header has ended."""

from __future__ import annotations

from typing import Any

from ..exceptions import NotRegistered

__all__ = ["send_unlock"]
_ROUTING = ("exchange", "exchange_type", "routing_key", "headers")


def send_unlock(
    backend: Any, header_result: Any, body: Any, countdown: float = 1, **kwargs: Any
) -> None:
    """Send the task that looks, again and again, where the body is to run."""
    app, options = backend.app, body.options
    stamps = options.get("stamped_headers", ())
    kwargs["result"] = [r.as_tuple() for r in header_result]
    try:
        kind = getattr(body, "type", None)
    except NotRegistered:
        kind = None
    queue = options.get("queue", getattr(kind, "queue", None))
    if queue is None:
        queue = app.amqp.router.route(kwargs, body.name)["queue"].name
    routing = {
        name: value
        for name in _ROUTING
        if name not in stamps and (value := options.get(name)) is not None
    }
    if "exchange_type" not in routing and (found := _exchange_type(app, queue)) is not None:
        routing["exchange_type"] = found
    if "exchange_type" in routing:  # for its retries
        kwargs["_chord_unlock_exchange_type"] = routing["exchange_type"]
    app.tasks["celery.chord_unlock"].apply_async(
        (header_result.id, body),
        kwargs,
        countdown=countdown,
        queue=queue,
        priority=options.get("priority", getattr(kind, "priority", 0)),
        **routing,
    )


def _exchange_type(app: Any, queue: Any) -> Any:
    try:
        found = app.amqp.queues[queue] if isinstance(queue, str) else queue
        return found.exchange.type
    except (AttributeError, KeyError):
        return None
