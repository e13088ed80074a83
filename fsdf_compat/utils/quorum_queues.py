"""Queues that RabbitMQ keeps on several nodes."""

from __future__ import annotations

from typing import Any

__all__ = ["detect_quorum_queues"]


def detect_quorum_queues(app: Any, driver_type: str) -> tuple[bool, str]:
    """Return (True, name) for the first quorum queue of the app, else (False, "")."""
    if driver_type == "amqp":
        for name, queue in app.amqp.queues.items():
            if (queue.queue_arguments or {}).get("x-queue-type") == "quorum":
                return True, name
    return False, ""
