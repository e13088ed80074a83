"""`celery result`: print what a task returned."""

from __future__ import annotations

from typing import Any

import click
from kombu.utils.url import maybe_sanitize_url

from .._engine.errors import WRONG
from ..backends.base import DisabledBackend
from ..exceptions import CeleryCommandException
from ..platforms import EX_UNAVAILABLE
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
    found = _asked(ctx.obj.app, task_id, task)
    ctx.obj.echo(found.traceback if traceback else found.get())


def _asked(app: Any, task_id: str, task: str | None) -> Any:
    """Return the result of an id, whose backend has answered once.

    Waiting outlasts an outage, and so it would one that was there from the start.
    """
    asked = app.tasks[task] if task else app
    try:
        found = asked.AsyncResult(task_id)
        if not isinstance(found.backend, DisabledBackend):  # which says by itself what it lacks
            found.ready()
    except WRONG:
        raise
    except Exception as error:  # of any backend's client
        place = maybe_sanitize_url(str(app.conf.result_backend))
        message = (
            f"Could not ask the result backend {place}. Please make sure that it is running and"
            f" that result_backend is correct. Reason: {error}"
        )
        raise CeleryCommandException(message=message, exit_code=EX_UNAVAILABLE) from error
    return found
