"""`celery status`, `celery inspect` and `celery control`: ask workers, and tell them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import click
from kombu.utils.json import dumps

from ..exceptions import CeleryCommandException
from ..platforms import EX_UNAVAILABLE
from ..utils import text
from ..worker.control import Panel
from .base import (
    COMMA_SEPARATED_LIST,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
    handle_remote_command_error,
)

__all__ = ["control", "inspect", "status"]


def _say_remote_command_reply(ctx: Any, replies: dict[str, Any], show_reply: bool = False) -> None:
    node, reply = next(iter(replies.items()))
    name = ctx.obj.style(f"{node}: ", fg="cyan", bold=True)
    word, body = ctx.obj.pretty(reply)
    body = text.indent(body, 4) if show_reply else ""
    ctx.obj.say_chat("->", f"{name}{word}", body, show_body=show_reply)


def _consume_arguments(meta: Any, method: str, args: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield what a command's own arguments are; `args` keeps the rest."""
    given = args[:]
    for (name, kind), value in zip(meta.args or (), given, strict=False):
        del args[0]
        yield name, value if kind is None else kind(value)
    if args and not meta.variadic:
        raise click.UsageError(f"Command {method!r} takes arguments: {meta.signature}")


def _compile_arguments(command: str, args: list[str]) -> dict[str, Any]:
    meta = Panel.meta[command]
    arguments = dict(_consume_arguments(meta, command, args)) if meta.args else {}
    if meta.variadic:
        arguments[meta.variadic] = args
    return arguments


def _commands(type_: str) -> dict[str, Any]:
    found = {name: m for name, m in Panel.meta.items() if m.type == type_ and m.visible}
    return dict(sorted(found.items()))


def _verify_command_name(type_: str, command: str) -> None:
    if command not in (known := _commands(type_)):
        names = ", ".join(known)
        raise click.UsageError(
            f"Command {command} not recognized. Available {type_} commands: {names}"
        )


def _list_option(type_: str) -> Any:
    def show(ctx: click.Context, param: Any, value: Any) -> None:
        if not value:
            return
        formatter = click.HelpFormatter()
        with formatter.section(f"{type_.capitalize()} Commands"):
            formatter.write_dl([
                (f"{name} {meta.signature}" if meta.signature else name, meta.help or "")
                for name, meta in _commands(type_).items()
            ])  # fmt: skip
        ctx.obj.echo(formatter.getvalue(), nl=False)
        ctx.exit()

    text = f"List the {type_} commands."
    return click.option(
        "--list", is_flag=True, help=text, expose_value=False, is_eager=True, callback=show
    )


def _remote(fun: Any) -> Any:
    """Add what all three take."""
    group = "Remote Control Options"
    for names, kwargs in reversed([
        (("-t", "--timeout"), {"type": float, "default": 1.0, "help": "Seconds to wait."}),
        (("-d", "--destination"), {"type": COMMA_SEPARATED_LIST,
                                   "help": "Only these nodes, with commas between."}),
        (("-j", "--json"), {"is_flag": True, "help": "Write JSON."}),
    ]):  # fmt: skip
        fun = click.option(*names, cls=CeleryOption, help_group=group, **kwargs)(fun)
    return fun


def _answered(ctx: Any, replies: Any, json: bool) -> None:
    if not replies:
        message = "No nodes replied within time constraint"
        raise CeleryCommandException(message=message, exit_code=EX_UNAVAILABLE)
    if json:
        ctx.obj.echo(dumps(replies))


def _count(ctx: Any, replies: Any) -> None:
    ctx.obj.echo(f"\n{len(replies)} {text.pluralize(len(replies), 'node')} online.")


@click.command(cls=CeleryCommand)
@_remote
@click.pass_context
@handle_preload_options
def status(ctx: Any, timeout: float, destination: Any, json: bool, **kwargs: Any) -> None:
    """Show which workers are online."""
    callback = None if json else partial(_say_remote_command_reply, ctx)
    asked = ctx.obj.app.control.inspect
    try:
        replies = asked(timeout=timeout, destination=destination, callback=callback).ping()
    except Exception as error:
        handle_remote_command_error("status", error)
    _answered(ctx, replies, json)
    if not (kwargs.get("quiet") or json):
        _count(ctx, replies)


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option("inspect")
@_remote
@click.pass_context
@handle_preload_options
def inspect(
    ctx: Any, command: str, timeout: float, destination: Any, json: bool, **kwargs: Any
) -> None:
    """Ask the workers COMMAND; over Redis and RabbitMQ."""
    _verify_command_name("inspect", command)
    callback = None if json else partial(_say_remote_command_reply, ctx, show_reply=True)
    arguments = _compile_arguments(command, ctx.args)
    asked = ctx.obj.app.control.inspect(timeout=timeout, destination=destination, callback=callback)
    try:
        replies = asked._request(command, **arguments)
    except Exception as error:
        handle_remote_command_error(f"inspect {command}", error)
    _answered(ctx, replies, json)
    if not (json or ctx.obj.quiet):
        _count(ctx, replies)


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option("control")
@_remote
@click.pass_context
@handle_preload_options
def control(
    ctx: Any, command: str, timeout: float, destination: Any, json: bool, **kwargs: Any
) -> None:
    """Tell the workers COMMAND; over Redis and RabbitMQ."""
    _verify_command_name("control", command)
    callback = None if json else partial(_say_remote_command_reply, ctx, show_reply=True)
    arguments = _compile_arguments(command, ctx.args)
    try:
        replies = ctx.obj.app.control.broadcast(
            command,
            timeout=timeout,
            destination=destination,
            callback=callback,
            reply=True,
            arguments=arguments,
        )
    except Exception as error:
        handle_remote_command_error(f"control {command}", error)
    _answered(ctx, replies, json)
