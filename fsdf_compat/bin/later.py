"""Commands of Celery that this version does not have: each says so, and what to use instead."""

from __future__ import annotations

from typing import Any

import click

from .base import CeleryCommand

__all__ = ["LATER"]
_INSTEAD = {
    "amqp": "use your broker's own tools",
    "events": "the log of the worker tells of every task",
    "graph": "the log of the worker shows its parts at the level DEBUG",
    "logtool": "use any tool for text",
    "migrate": "see the migration guide: old and new queues are read side by side",
    "multi": "use systemd, supervisor or containers, or `celery worker --detach`",
    "upgrade": "`celery report` shows the settings, and which are unknown",
}


def _later(name: str, instead: str) -> click.Command:
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}

    @click.command(
        name, cls=CeleryCommand, context_settings=settings, help=f"Not there: {instead}."
    )
    @click.pass_context
    def command(ctx: Any, /, **kwargs: Any) -> None:
        raise click.ClickException(f"`celery {name}` is not in this version; {instead}")

    return command


LATER = [_later(name, instead) for name, instead in _INSTEAD.items()]
