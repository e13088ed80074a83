"""`celery list bindings`: what the broker tells."""

from __future__ import annotations

from typing import Any

import click

from .base import CeleryCommand, handle_preload_options

__all__ = ["list_"]


@click.group(name="list")
@click.pass_context
@handle_preload_options
def list_(ctx: Any) -> None:
    """Ask the broker."""


@list_.command(cls=CeleryCommand)
@click.pass_context
def bindings(ctx: Any) -> None:
    """Print which queues are bound to which exchanges."""
    app = ctx.obj.app
    with app.connection() as connection:
        app.amqp.TaskConsumer(connection).declare()
        try:
            found = connection.manager.get_bindings()
        except NotImplementedError:
            raise click.UsageError("Your transport cannot list bindings.") from None
    rows = [(b["destination"], b["source"], b["routing_key"]) for b in found]
    for queue, exchange, key in [("Queue", "Exchange", "Routing Key"), ("-" * 16,) * 3, *rows]:
        ctx.obj.echo(f"{queue:<28} {exchange:<28} {key}")
