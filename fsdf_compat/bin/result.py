"""`celery result`: print what a task returned."""

from __future__ import annotations

from typing import Any

import click

from .base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ["result"]
_GROUP = "Result Options"


@click.command(cls=CeleryCommand)
@click.argument("task_id")
@click.option(
    "-t", "--task", cls=CeleryOption, help_group=_GROUP, help="Its name, if it has its own backend."
)
@click.option(
    "--traceback", cls=CeleryOption, is_flag=True, help_group=_GROUP, help="Print the traceback."
)
@click.pass_context
@handle_preload_options
def result(ctx: Any, task_id: str, task: str | None, traceback: bool) -> None:
    """Wait for the task of an id to end, and print what it returned."""
    app = ctx.obj.app
    found = (app.tasks[task].AsyncResult if task else app.AsyncResult)(task_id)
    ctx.obj.echo(found.traceback if traceback else found.get())
