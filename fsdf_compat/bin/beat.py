"""`celery beat`: send periodic tasks when they are due."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from ..platforms import detached, maybe_drop_privileges
from .base import LOG_LEVEL, CeleryDaemonCommand, CeleryOption, handle_preload_options

__all__ = ["beat"]


def _option(*names: str, **kwargs: Any) -> Any:
    return click.option(*names, cls=CeleryOption, help_group="Beat Options", **kwargs)


def _else(setting: str) -> Any:
    """Return a callback by which an option that is not given is as configured."""
    return lambda ctx, _, value: value or ctx.obj.app.conf[setting]


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True})
@_option("--detach", is_flag=True, default=False, help="Run in the background.")
@_option(
    "-s", "--schedule", callback=_else("beat_schedule_filename"),
    help="The file that keeps when tasks last ran; `celerybeat-schedule`. May get a suffix.",
)  # fmt: skip
@_option("-S", "--scheduler", callback=_else("beat_scheduler"), help="The class of the scheduler.")
@_option("--max-interval", type=int, help="Seconds between two looks at the schedule, at most.")
@_option(
    "--enable-remote-control/--no-enable-remote-control", "remote_control", default=None,
    help="Answer `celery inspect ping`; else as beat_enable_remote_control says.",
)  # fmt: skip
@_option("-n", "--hostname", default=None, help="By which name; celerybeat@%h.")
@_option("-l", "--loglevel", default="WARNING", type=LOG_LEVEL, help="The level of the log.")
@click.pass_context
@handle_preload_options
def beat(
    ctx: Any,
    detach: bool = False,
    logfile: Any = None,
    pidfile: Any = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = None,
    workdir: Any = None,
    **kwargs: Any,
) -> Any:
    """Start the scheduler of periodic tasks."""
    app = ctx.obj.app
    if ctx.args:
        try:
            app.config_from_cmdline(ctx.args)
        except (KeyError, ValueError) as error:
            text = f"Unable to parse extra configuration from command line.\nReason: {error}"
            raise click.UsageError(text, ctx=ctx) from error
    if not detach:
        maybe_drop_privileges(uid=uid, gid=gid)
    made = partial(app.Beat, logfile=logfile, pidfile=pidfile, quiet=ctx.obj.quiet, **kwargs)
    if detach:
        with detached(logfile, pidfile, uid, gid, umask, workdir):
            return made().run()
    return made().run()
