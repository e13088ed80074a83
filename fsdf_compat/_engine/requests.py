"""A message as the request that a task sees: a dict of its headers. Pure."""

from __future__ import annotations

import datetime
import os
import socket
from typing import Any

from fsdf_engine.contracts import Job

from .places import unrank

__all__ = ["NODE", "PLAIN", "Requests", "node_name"]
PLAIN = 10  # headers of a request that has none of its own
NODE = "FSDF_CELERY_NODE"  # the environment variable that tells children the worker's name


def node_name() -> str:
    """Return the name of the worker that this process is, or is a part of."""
    return os.environ.get(NODE) or f"celery@{socket.gethostname()}"


class Requests:
    """Makes the requests of one app's messages."""

    def __init__(self, app: Any) -> None:
        self._url = app.conf.broker_url
        self._suffix = app.conf.fsdf_queue_suffix
        self._queues: dict[str, str] = {}
        self.node = node_name()

    def queue_of(self, wire_queue: str) -> str:
        """Return the name by which users know a queue."""
        if (found := self._queues.get(wire_queue)) is None:
            found = self._queues[wire_queue] = wire_queue.removesuffix(self._suffix)
        return found

    def of(self, job: Job) -> dict[str, Any]:
        """Return a message's request, without its arguments."""
        extra, sent, id, queue = job.extra, job.delivery, job.id, job.plan.queue
        priority = extra.get("priority") or (sent.priority and unrank(self._url, sent.priority))
        request = {
            "lang": "py",
            "task": job.plan.name,
            "id": id,
            "correlation_id": id,
            "root_id": id,
            "retries": job.attempt,
            "hostname": self.node,
            "is_eager": False,
            "origin": extra.get("origin"),
            "delivery_info": {
                "exchange": "",
                "routing_key": self._queues.get(queue) or self.queue_of(queue),
                "priority": priority,
                "redelivered": bool(sent.deliveries or sent.state or "redelivered" in extra),
            },
        }
        if headers := extra.get("headers"):
            request.update(headers)
        if "limits" in extra:
            soft, hard = extra["limits"]
            request["timelimit"] = [hard or None, soft or None]
        if expires := extra.get("expires"):
            instant = datetime.datetime.fromtimestamp(expires, datetime.timezone.utc)
            request["expires"] = instant.isoformat()
        return request
