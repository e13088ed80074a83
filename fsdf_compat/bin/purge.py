"""`celery purge`: delete what waits."""

from __future__ import annotations

from typing import Any

import click
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from ..utils import text
from .base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options

__all__ = ["purge"]
_GROUP = "Purging Options"


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.option("-f", "--force", cls=CeleryOption, is_flag=True, help_group=_GROUP, help="Don't ask.")
@click.option(
    "-Q", "--queues", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=_GROUP,
    help="The queues, with commas between; else all that are configured.",
)  # fmt: skip
@click.option(
    "-X", "--exclude-queues", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=_GROUP,
    help="Not these.",
)  # fmt: skip
@click.pass_context
@handle_preload_options
def purge(ctx: Any, force: bool, queues: Any, exclude_queues: Any, **kwargs: Any) -> None:
    """Delete all messages that wait in the queues of tasks. There is no way back."""
    app = ctx.obj.app
    names = sorted(set(queues or app.amqp.queues) - set(exclude_queues or ()))
    if not names:
        return
    title = text.pluralize(len(names), "queue")
    if not force:
        warning = ctx.obj.style("WARNING", fg="red")
        click.confirm(
            f"{warning}: This will remove all tasks from {title}: {', '.join(names)}.\n"
            "         There is no undo for this operation!\n\n"
            "(to skip this prompt use the -f option)\n"
            "Are you sure you want to delete all tasks?",
            abort=True,
        )
    try:
        count = app.control.purge_queues(names)
    except OperationalError as error:
        broker = maybe_sanitize_url(str(app.conf.broker_write_url or "amqp://"))
        raise click.ClickException(f"cannot purge at {broker}: {error}") from error
    if count:
        messages = text.pluralize(count, "message")
        ctx.obj.echo(f"Purged {count} {messages} from {len(names)} known task {title}.")
    else:
        ctx.obj.echo(f"No messages purged from {len(names)} {title}.")
