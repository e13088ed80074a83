"""`celery call`: send a task."""

from __future__ import annotations

from typing import Any

import click
from kombu.exceptions import OperationalError

from .base import (
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
    handle_remote_command_error,
)

__all__ = ["call"]


def _option(*names: str, group: str = "Calling Options", **kwargs: Any) -> Any:
    return click.option(*names, cls=CeleryOption, help_group=group, **kwargs)


@click.command(cls=CeleryCommand)
@click.argument("name")
@_option("-a", "--args", type=JSON_ARRAY, default="[]", help="Positional arguments.")
@_option("-k", "--kwargs", type=JSON_OBJECT, default="{}", help="Keyword arguments.")
@_option("--eta", type=ISO8601, help="When it may run.")
@_option("--countdown", type=float, help="The same, in seconds from now.")
@_option("--expires", type=ISO8601_OR_FLOAT, help="After which it is not run any more.")
@_option("--serializer", default="json", help="How the message is written.")
@_option("--queue", group="Routing Options", help="The queue; else as configured.")
@_option("--exchange", group="Routing Options", help="The exchange.")
@_option("--routing-key", group="Routing Options", help="The routing key.")
@click.pass_context
@handle_preload_options
def call(ctx: Any, name: str, **options: Any) -> None:
    """Send a task by its NAME, which need not be known here; print its id."""
    try:
        sent = ctx.obj.app.send_task(name, **options)
    except OperationalError as error:
        handle_remote_command_error("call", error)
    else:
        ctx.obj.echo(sent.id)
