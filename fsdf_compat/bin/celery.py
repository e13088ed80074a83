"""The command `celery`."""

from __future__ import annotations

import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
from click_didyoumean import DYMGroup

from .. import VERSION_BANNER
from .._engine.errors import WRONG
from ..app.utils import find_app
from .base import CeleryCommand, CeleryOption, CLIContext, consume_preload_options
from .beat import beat
from .call import call
from .control import control, inspect, status
from .later import LATER
from .list import list_
from .purge import purge
from .result import result
from .shell import shell
from .worker import worker

__all__ = ["celery", "main"]
_ENVIRONMENT = {
    "loader": "CELERY_LOADER", "broker": "CELERY_BROKER_URL",
    "result_backend": "CELERY_RESULT_BACKEND", "config": "CELERY_CONFIG_MODULE",
}  # fmt: skip
_WRONG_PLACE = """You are using `{option}` as an option of the {command} sub-command:
celery {command} {option} celeryapp <...>

It is an option of `celery` itself:
celery {option} celeryapp {command} <...>"""


class _Commands(DYMGroup):
    """The commands. Of a setting that is wrong they say what is wrong with it, in a line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except WRONG as error:
            raise click.ClickException(str(error)) from error


def _option(*names: str, **kwargs: Any) -> Any:
    return click.option(*names, cls=CeleryOption, help_group="Global Options", **kwargs)


@click.group(cls=_Commands, invoke_without_command=True)
# An app itself, where Python calls us: click would make it text.
@_option("-A", "--app", envvar="APP", type=click.UNPROCESSED, help="Where the app is.")
@_option("-b", "--broker", envvar="BROKER_URL", help="Its broker's URL.")
@_option("--result-backend", envvar="RESULT_BACKEND", help="Its result backend's URL.")
@_option("--loader", envvar="LOADER", help="The class of its loader.")
@_option("--config", envvar="CONFIG_MODULE", help="The module with its settings.")
@_option(
    "--workdir", type=pathlib.Path, is_eager=True, help="Go to this folder first.",
    callback=lambda _, __, folder: os.chdir(folder) if folder else None,
)  # fmt: skip
@_option("-C", "--no-color", envvar="NO_COLOR", is_flag=True, help="No colours.")
@_option("-q", "--quiet", is_flag=True, help="Say less.")
@_option("--version", is_flag=True, help="Print the version.")
@_option("--skip-checks", envvar="SKIP_CHECKS", is_flag=True, help="Without Django's checks.")
@click.pass_context
def celery(
    ctx: click.Context,
    /,
    app: Any,
    workdir: Any,
    no_color: bool,
    quiet: bool,
    version: bool,
    skip_checks: bool,
    **given: Any,
) -> None:
    """Run workers and periodic tasks, ask workers, send tasks."""
    if version or ctx.invoked_subcommand is None:
        click.echo(VERSION_BANNER if version else ctx.get_help())
        ctx.exit()
    os.environ.update({_ENVIRONMENT[name]: str(value) for name, value in given.items() if value})
    if skip_checks:
        os.environ["CELERY_SKIP_CHECKS"] = "true"
    if isinstance(app, str):
        app = _found(ctx, app)
    ctx.obj = CLIContext(app=app, no_color=no_color, workdir=workdir, quiet=quiet)
    _add_options(ctx.obj.app.user_options)


def _found(ctx: click.Context, place: str) -> Any:
    """Return the app that `-A` names."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return find_app(place)
    except ModuleNotFoundError as error:
        if error.name == place or place.startswith(f"{error.name}."):
            return _fail(ctx, f"The module {error.name} was not found.")
        return _fail(ctx, _occurred(place))
    except AttributeError as error:
        text = str(error)
        return _fail(ctx, text[:1].upper() + text[1:])
    except Exception:
        return _fail(ctx, _occurred(place))


def _occurred(place: str) -> str:
    error = traceback.format_exc()
    return f"While trying to load the module {place} the following error occurred:\n{error}"


def _fail(ctx: click.Context, why: str) -> Any:
    ctx.fail(click.style(f"\nUnable to load celery application.\n{why}", fg="red"))


def _add_options(user_options: Any) -> None:
    """Give the commands the options that the app adds, once."""
    for command in (worker, beat):
        _add(command, user_options.get(command.name, ()))
    preload = user_options.get("preload", ())
    for command in celery.commands.values():
        _add(command, preload)
        if preload:
            command.callback = consume_preload_options(command.callback)


def _add(command: click.Command, options: Any) -> None:
    command.params.extend(option for option in options if option not in command.params)


@celery.command(cls=CeleryCommand)
@click.pass_context
def report(ctx: Any, /, **kwargs: Any) -> None:
    """Print what a report of a bug needs."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    ctx.obj.echo(app.bugreport())


def _plugin(found: EntryPoint) -> click.Command:
    """Return the command of another package; one that says why, if it cannot be loaded."""
    try:
        command = found.load()
    except Exception as error:
        reason = f"the command {found.name} of {found.value} cannot be loaded: {error}"

        @click.command(found.name, context_settings={"ignore_unknown_options": True})
        @click.argument("arguments", nargs=-1)
        def broken(arguments: Any, **kwargs: Any) -> None:
            raise click.ClickException(reason)

        return broken
    return command


for _command in (purge, call, beat, list_, result, status, worker, inspect, control, shell, *LATER):
    celery.add_command(_command)
for _found_plugin in entry_points(group="celery.commands"):
    celery.add_command(_plugin(_found_plugin), _found_plugin.name)

_show = click.exceptions.NoSuchOption.show


def _show_with_hint(self: click.NoSuchOption, file: Any = None) -> None:
    ctx = self.ctx
    if self.option_name in ("-A", "--app") and ctx is not None and ctx.obj is not None:
        text = _WRONG_PLACE.format(option=self.option_name, command=ctx.info_name)
        ctx.obj.error(text, fg="red")
    _show(self, file=file)


click.exceptions.NoSuchOption.show = _show_with_hint  # type: ignore[assignment,method-assign]


def main(argv: Sequence[str] | None = None) -> Any:
    """Run the command; `argv` are its arguments, by default those of the process."""
    return celery(args=argv, prog_name="celery", auto_envvar_prefix="CELERY")
