"""A task that answers, for workers in tests: importing this declares it."""

from __future__ import annotations

from ...app import shared_task

__all__ = ("ping",)


@shared_task(name="celery.ping")
def ping() -> str:
    """Return "pong"."""
    return "pong"
