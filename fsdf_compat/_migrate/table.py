"""What works, what differs, and what is not there: one table, by the kind of use.

What is in none of these tables works. A page is one of `migration_guide/`, with its heading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Finding", "finding"]


class Finding(NamedTuple):
    """What becomes of one use."""

    status: str  # "works", "differs" or "not there"
    text: str = ""
    page: str = ""


_WORKS = Finding("works")


def _not(text: str, page: str = "differences.md#not-there-yet") -> Finding:
    return Finding("not there", text, page)


def _differs(text: str, page: str = "differences.md#what-differs") -> Finding:
    return Finding("differs", text, page)


_EVENTS = _not("events are not sent yet; the worker's log and `inspect` tell what runs")
_BORROWED = _differs("taken from Celery, which has to be installed beside: celery==5.7.*")
_INSIDE = _not("a part of Celery's own worker, which is another one here")

_IMPORTS: Mapping[str, Finding] = {
    "celery.events": _EVENTS,
    "celery.apps.multi": _not("run workers by systemd, supervisor or containers"),
    "celery.bin.multi": _not("run workers by systemd, supervisor or containers"),
    "celery.concurrency.asynpool": _INSIDE,
    "celery.contrib.migrate": _BORROWED,
    "celery.contrib.rdb": _BORROWED,
    "celery.contrib.sphinx": _BORROWED,
    "celery.security": _not("signed messages are not there yet"),
    "celery.task": _not("gone since Celery 5, too"),
    "celery.worker.autoscale": _INSIDE,
    "celery.worker.components": _INSIDE,
    "celery.worker.consumer.gossip": _INSIDE,
    "celery.worker.consumer.mingle": _INSIDE,
    "celery.worker.heartbeat": _INSIDE,
    "celery.worker.loops": _INSIDE,
    "celery.worker.request": _not("a class of your own is told of time limits and lost workers"
                                  " only; use `Task.on_failure`, `on_success` and `on_retry`"),
    "celery_batches": _not("it replaces the worker's own parts; take messages one by one"),
}  # fmt: skip
_TASK_OPTIONS: Mapping[str, Finding] = {
    "Strategy": _not("the worker's own parts cannot be replaced"),
    "acks_late": _differs("a task whose worker was lost runs again, also without"
                          " reject_on_worker_lost; with False given it fails"),
    "send_events": _EVENTS,
    "serializer": _differs("messages are JSON, which carries what another serializer has made;"
                           " it is read where `accept_content` has it"),
    "compression": _differs("messages are not compressed; the option has no effect"),
}  # fmt: skip
_CALL_OPTIONS: Mapping[str, Finding] = {
    "compression": _TASK_OPTIONS["compression"],
    "exchange": _differs("an exchange means the queues of `task_queues` that are bound to it"),
    "producer": _differs("says which broker; the message is not sent by it"),
    "serializer": _TASK_OPTIONS["serializer"],
}
_BROKERS: Mapping[str, Finding] = {
    "amqp": _not("RabbitMQ is not there yet; Redis and SQLite are"),
    "pyamqp": _not("RabbitMQ is not there yet; Redis and SQLite are"),
    "sqs": _not("Amazon SQS is not there"),
    "mongodb": _not("MongoDB is not there yet"),
    "kafka": _not("Kafka is not there yet"),
    "filesystem": _not("use sqlite:// instead"),
}
_SETTINGS: Mapping[str, Finding] = {
    "broker_transport_options": _differs(
        "`visibility_timeout` is not needed: leases are renewed; what a running task holds never"
        " goes to another worker"),
    "task_acks_late": _TASK_OPTIONS["acks_late"],
    "task_send_sent_event": _EVENTS,
    "worker_send_task_events": _EVENTS,
    "task_serializer": _TASK_OPTIONS["serializer"],
    "task_compression": _TASK_OPTIONS["compression"],
    "task_protocol": _differs("messages are flat JSON on queues of their own"),
    "worker_autoscaler": _not("the number of slots is fixed"),
    "worker_consumer": _INSIDE,
    "worker_timer": _INSIDE,
    "worker_agent": _INSIDE,
    "security_key": _not("signed messages are not there yet"),
    "security_certificate": _not("signed messages are not there yet"),
}  # fmt: skip
_COMMANDS: Mapping[str, Finding] = {
    "amqp": _not("use your broker's own tools"),
    "events": _EVENTS,
    "flower": _EVENTS,
    "graph": _not("a part of Celery's own worker"),
    "logtool": _not("use any tool for text"),
    "migrate": _not("see the guide"),
    "multi": _not("run workers by systemd, supervisor or containers"),
    "upgrade": _not("`celery report` shows settings"),
    "--autoscale": _differs("slots start as work needs them, at once; idle children end"),
    "-E": _EVENTS,
    "--task-events": _EVENTS,
}
_ATTRIBUTES: Mapping[str, Finding] = {
    "stamp": _differs("stamps are carried, and visitors called; `revoke_by_stamped_headers` too"),
    "pool_grow": _not("the number of slots is fixed"),
    "pool_shrink": _not("the number of slots is fixed"),
    "enable_events": _EVENTS,
    "disable_events": _EVENTS,
}
_TABLES = {
    "import": _IMPORTS, "task option": _TASK_OPTIONS, "call option": _CALL_OPTIONS,
    "broker": _BROKERS, "setting": _SETTINGS, "command": _COMMANDS, "call": _ATTRIBUTES,
}  # fmt: skip


def finding(kind: str, name: str) -> Finding:
    """Return what becomes of a use; of an import also by the packages that it is in."""
    table = _TABLES[kind]
    if kind != "import":
        return table.get(name, _WORKS)
    while name:
        if found := table.get(name):
            return found
        name = name.rpartition(".")[0]
    return _WORKS
