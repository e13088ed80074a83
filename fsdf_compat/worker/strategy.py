"""What is told of a message when it has come: a log line, a count, and `task_received`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from fsdf_engine.contracts import Job

from .. import signals
from .._engine import steps
from ..app import trace as _app_trace
from ..exceptions import InvalidTaskError
from ..utils.imports import symbol_by_name
from ..utils.log import get_logger
from ..utils.saferepr import saferepr
from . import state

__all__ = ("default", "receiver", "request_of", "waiting_request")
logger = get_logger("celery.worker.strategy")


class Shown(dict):
    """What a log line says of a message; its arguments are made to text if somebody asks."""

    def __init__(self, job: Job, name: str) -> None:
        super().__init__(id=job.id, name=name, eta=None)
        self._job = job

    def __missing__(self, key: str) -> str:
        if key not in ("args", "kwargs"):
            raise KeyError(key)
        headers, (args, kwargs) = self._job.extra.get("headers") or {}, arguments_of(self._job)
        self["args"] = headers.get("argsrepr") or saferepr(args)
        self["kwargs"] = headers.get("kwargsrepr") or saferepr(kwargs)
        return self[key]

    def keys(self) -> Any:
        """Return all keys, as somebody wants them all."""
        self["args"]
        return super().keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


def arguments_of(job: Job) -> tuple[Any, Any]:
    """Return a message's arguments, none if they cannot be read; the job stays as it is."""
    try:
        found = job.codec.envelope(job.delivery.body, job.delivery.headers)
        extra, kept = found or ({}, {})
        copy: Any = SimpleNamespace(kept=kept, extra=extra, delivery=job.delivery)
        return job.codec.arguments(copy)
    except Exception:  # of any class: what is wrong with it its run says
        return (), {}


def request_of(job: Job, task: Any, requests: Any, app: Any) -> Any:
    """Return a message as the class of requests that its task wants."""
    headers = requests.of(job)
    args, kwargs = arguments_of(job)
    if "chain" in headers:
        headers["chain"] = steps.opened(headers["chain"])
    headers.setdefault("argsrepr", saferepr(args))
    headers.setdefault("kwargsrepr", saferepr(kwargs))
    embed = {key: headers.get(key) for key in ("callbacks", "errbacks", "chain", "chord")}
    message: Any = SimpleNamespace(
        headers=headers, body=job.delivery.body, payload=(args, kwargs, embed),
        content_type="application/json", content_encoding="utf-8",
        delivery_info=headers["delivery_info"],
        properties={"correlation_id": job.id, "reply_to": headers.get("reply_to")},
    )  # fmt: skip
    cls = symbol_by_name(task.Request)
    made = cls(message, app=app, hostname=requests.node, task=task, headers=headers)
    made.acknowledged, made.job = job.acked, job
    return made


def waiting_request(item: Any, requests: Any, app: Any) -> Any:
    """Return a message that a broker lists as a request; None: of no task that is known here."""
    codec = app.engine.codecs[0]
    try:
        extra = codec.envelope(item.body, item.headers)[0]
        task = app._tasks[extra["task"]]
    except (KeyError, ValueError, TypeError):
        return None
    delivery = SimpleNamespace(
        body=item.body, headers=item.headers, priority=item.priority, deliveries=0, state=None
    )
    job: Any = SimpleNamespace(
        id=extra.get("task_id") or item.id, extra=extra, delivery=delivery, codec=codec,
        plan=SimpleNamespace(name=task.name, queue=item.queue), acked=False,
        attempt=extra.get("attempt") or 0,
    )  # fmt: skip
    return request_of(job, task, requests, app)


def receiver(consumer: Any) -> Callable[[Sequence[Job]], None]:
    """Return what a consumer does with messages that have come; see `messages_received`."""
    count = state.total_count

    def received(jobs: Sequence[Job]) -> None:
        tells = logger.isEnabledFor(logging.INFO) or signals.task_received.receivers
        for job in jobs:
            if not (name := job.plan.name):  # nobody knows it yet, if ever
                continue
            if job.id in state.terminated:  # its run was ended: it comes back to be found revoked
                continue
            count[name] += 1
            if tells:
                try:
                    _tell_received(consumer, job, name)
                except Exception:  # the others are told
                    logger.exception("Cannot tell that %s[%s] was received", name, job.id)

    return received


def _tell_received(consumer: Any, job: Job, name: str) -> None:
    """Log that a message has come, and tell the receivers."""
    if logger.isEnabledFor(logging.INFO):
        shown = Shown(job, (job.extra.get("headers") or {}).get("shadow") or name)
        logger.info(_app_trace.LOG_RECEIVED, shown, extra={"data": shown})
    # that of a task that only children have imported has no request here
    app = consumer.app
    if signals.task_received.receivers and (task := app._tasks.get(name)) is not None:
        request = request_of(job, task, consumer.requests, app)
        signals.task_received.send(sender=consumer, request=request)


def default(task: Any, app: Any, consumer: Any, **kwargs: Any) -> Callable[..., None]:
    """Return what handles a message of Celery's own form: the engine has a consumer of its own."""

    def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
        raise NotImplementedError("messages are handled by the engine's consumer")

    return handle


def hybrid_to_proto2(message: Any, body: Any) -> tuple[Any, Any, bool, Any]:
    """Return a message of protocol 1 with headers of protocol 2 as one of protocol 2."""
    args, kwargs = _arguments(body)
    kept = ("lang", "task", "id", "root_id", "parent_id", "group", "meth", "shadow", "eta",
            "expires", "argsrepr", "kwargsrepr", "origin")  # fmt: skip
    headers = {key: body.get(key) for key in kept}
    headers["retries"] = body.get("retries", 0)
    headers["timelimit"] = body.get("timelimit", (None, None))
    headers.update(message.headers or {})
    return (args, kwargs, _embedded(body)), headers, True, body.get("utc", True)


def proto1_to_proto2(message: Any, body: Any) -> tuple[Any, Any, bool, Any]:
    """Return a message of protocol 1 as one of protocol 2."""
    args, kwargs = _arguments(body)
    body.update(argsrepr=saferepr(args), kwargsrepr=saferepr(kwargs), headers=message.headers)
    if "taskset" in body:
        body["group"] = body["taskset"]
    return (args, kwargs, _embedded(body)), body, True, body.get("utc", True)


def _arguments(body: Any) -> tuple[Any, Any]:
    args, kwargs = body.get("args", ()), body.get("kwargs", {})
    if not hasattr(kwargs, "items"):
        raise InvalidTaskError("Task keyword arguments must be a mapping")
    return args, kwargs


def _embedded(body: Any) -> dict[str, Any]:
    return {**{key: body.get(key) for key in ("callbacks", "errbacks", "chord")}, "chain": None}
