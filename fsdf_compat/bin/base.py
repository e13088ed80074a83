"""What the commands have in common, also those of plug-ins: options, types, output."""

from __future__ import annotations

import inspect
import json
import numbers
from collections.abc import Callable
from functools import update_wrapper
from pprint import pformat
from typing import Any

import click
from kombu.exceptions import OperationalError
from kombu.utils.objects import cached_property

from .._engine.errors import WRONG
from .._state import get_current_app
from ..exceptions import CeleryCommandException
from ..platforms import EX_UNAVAILABLE
from ..signals import user_preload_options
from ..utils import text
from ..utils.log import mlevel
from ..utils.time import maybe_iso8601

__all__ = [
    "COMMA_SEPARATED_LIST", "ISO8601", "ISO8601_OR_FLOAT", "JSON_ARRAY", "JSON_OBJECT", "LOG_LEVEL",
    "CLIContext", "CeleryCommand", "CeleryDaemonCommand", "CeleryOption", "DaemonOption",
    "consume_preload_options", "handle_preload_options", "handle_remote_command_error",
]  # fmt: skip


class CLIContext:
    """`ctx.obj` of every command: the app, and how to write."""

    def __init__(self, app: Any, no_color: bool, workdir: Any, quiet: bool = False) -> None:
        self.app = app or get_current_app()
        self.no_color, self.quiet, self.workdir = no_color, quiet, workdir

    @cached_property
    def OK(self) -> str:
        """The word, in its colour."""
        return self.style("OK", fg="green", bold=True)

    @cached_property
    def ERROR(self) -> str:
        """The word, in its colour."""
        return self.style("ERROR", fg="red", bold=True)

    def style(self, message: Any = None, **kwargs: Any) -> Any:
        """Return text in colours, if there are any."""
        return message if self.no_color else click.style(message, **kwargs)

    def secho(self, message: Any = None, **kwargs: Any) -> None:
        """Write a line in colours, if there are any."""
        if self.no_color:
            self.echo(message, **kwargs)
        else:
            click.secho(message, **kwargs)

    def echo(self, message: Any = None, **kwargs: Any) -> None:
        """Write a line."""
        if self.no_color:
            plain = {name: kwargs[name] for name in ("file", "nl", "err") if name in kwargs}
            click.echo(message, **plain, color=False)
        else:
            click.echo(message, **kwargs)

    def error(self, message: Any = None, **kwargs: Any) -> None:
        """Write a line to where errors go."""
        self.secho(message, **{**kwargs, "err": True})

    def pretty(self, n: Any) -> tuple[str, str]:
        """Return (OK or ERROR, text) of a worker's answer."""
        if isinstance(n, list):
            return self.OK, self.pretty_list(n)
        if isinstance(n, dict):
            if "ok" in n or "error" in n:
                return self.pretty_dict_ok_error(n)
            return self.OK, json.dumps(n, sort_keys=True, indent=4)
        return self.OK, n if isinstance(n, str) else pformat(n)

    def pretty_list(self, n: list[Any]) -> str:
        """Return a line for each."""
        star = self.style("*", fg="white")
        return "\n".join(f"{star} {item}" for item in n) if n else "- empty -"

    def pretty_dict_ok_error(self, n: dict[str, Any]) -> tuple[str, str]:
        """Return (OK or ERROR, text) of what says which it is."""
        word, key = (self.OK, "ok") if "ok" in n else (self.ERROR, "error")
        return word, text.indent(self.pretty(n[key])[1], 4)

    def say_chat(self, direction: str, title: str, body: str = "", show_body: bool = False) -> None:
        """Write what was asked (<-) or answered (->)."""
        if direction == "<-" and self.quiet:
            return
        arrow = "" if self.quiet else f"{self.style(direction, fg='white', bold=True)} "
        self.echo(f"{arrow} {title}")
        if body and show_body:
            self.echo(body)


def handle_remote_command_error(command: str, exc: Exception) -> None:
    """Raise what the command line shows of an error while workers were asked."""
    if isinstance(exc, (click.ClickException, *WRONG)):
        raise exc
    if isinstance(exc, OperationalError):
        message = (
            "Could not connect to the message broker. Please make sure your broker (e.g., RabbitMQ"
            f" or Redis) is running and the connection settings are correct. Reason: {exc}"
        )
    else:
        message = f"Unable to run the `{command}` command. Reason: {exc}"
    raise CeleryCommandException(message=message, exit_code=EX_UNAVAILABLE) from exc


# ------------------------------------------------------------------ options of the user's


def _accepts(fun: Callable[..., Any], name: str) -> bool:
    """Say whether a function can be given an argument of this name."""
    try:
        parameters = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = inspect.Parameter
    return any(
        p.kind is kinds.VAR_KEYWORD or (p.name == name and p.kind is not kinds.POSITIONAL_ONLY)
        for p in parameters
    )


def _tell_preload(app: Any, kwargs: dict[str, Any], fun: Callable[..., Any]) -> None:
    """Send the values of the app's own options; keep for `fun` what it takes."""
    names = [option.name for option in app.user_options.get("preload", ())]
    options = {name: kwargs[name] for name in names if name in kwargs}
    for name in options:
        if not _accepts(fun, name):
            del kwargs[name]
    if options:
        user_preload_options.send(sender=fun, app=app, options=options)


def _is_handled(fun: Any) -> bool:
    seen: set[int] = set()
    while fun is not None and id(fun) not in seen:
        if getattr(fun, "_handles_preload_options", False):
            return True
        seen.add(id(fun))
        fun = getattr(fun, "__wrapped__", None)
    return False


def _handled(wrapper: Any, fun: Callable[..., Any]) -> Any:
    wrapper = update_wrapper(wrapper, fun)
    wrapper._handles_preload_options = True
    return wrapper


def handle_preload_options(f: Callable[..., Any]) -> Any:
    """Have a command, which gets its context first, tell of `app.user_options["preload"]`."""
    if _is_handled(f):
        return f

    def caller(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        _tell_preload(ctx.obj.app, kwargs, f)
        return f(ctx, *args, **kwargs)

    return _handled(caller, f)


def consume_preload_options(fun: Any) -> Any:
    """Have a plug-in's command do so, which may know nothing of these options."""
    if fun is None or _is_handled(fun):
        return fun

    def caller(*args: Any, **kwargs: Any) -> Any:
        _tell_preload(click.get_current_context().obj.app, kwargs, fun)
        return fun(*args, **kwargs)

    return _handled(caller, fun)


class CeleryOption(click.Option):
    """An option with a heading, `help_group`, and perhaps a default of the context's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.help_group = kwargs.pop("help_group", None)
        self.default_value_from_context = kwargs.pop("default_value_from_context", None)
        super().__init__(*args, **kwargs)

    def get_default(self, ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        """Return the default, which the context may know."""
        if self.default_value_from_context:
            self.default = ctx.obj[self.default_value_from_context]
        return super().get_default(ctx, *args, **kwargs)


class CeleryCommand(click.Command):
    """A command whose help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                group = getattr(param, "help_group", None) or "Options"
                groups.setdefault(str(group), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


class DaemonOption(CeleryOption):
    """An option of what runs in the background: else it is as configured, `<command>_<name>`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs = {"help_group": "Daemonization Options", "callback": self.daemon_setting, **kwargs}
        super().__init__(args, **kwargs)

    def daemon_setting(self, ctx: click.Context, opt: CeleryOption, value: Any) -> Any:
        """Return the value that holds."""
        return value or getattr(ctx.obj.app.conf, f"{ctx.command.name}_{self.name}", None)


class CeleryDaemonCommand(CeleryCommand):
    """A command that may run in the background."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            DaemonOption("--logfile", "-f", help="Log destination; defaults to stderr"),
            DaemonOption("--pidfile", help="Path of the PID file; defaults to none"),
            DaemonOption("--uid", help="Run as this user"),
            DaemonOption("--gid", help="Run as this group"),
            DaemonOption("--umask", help="Create files and directories with this umask"),
            DaemonOption("--executable", help="Path of the Python executable"),
        ]


# ------------------------------------------------------------------ types of values


class CommaSeparatedList(click.ParamType):
    """Words with commas between them."""

    name = "comma separated list"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a list."""
        return text.str_to_list(value)


class _Json(click.ParamType):
    kind: type

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of the JSON text."""
        if isinstance(value, self.kind):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not isinstance(found, self.kind):
            self.fail(f"{value} is no {self.name}", param, ctx)
        return found


class JsonArray(_Json):
    """A list, as JSON."""

    name, kind = "json array", list


class JsonObject(_Json):
    """A dict, as JSON."""

    name, kind = "json object", dict


class ISO8601DateTime(click.ParamType):
    """An instant, such as 2030-01-31T12:00:00+01:00."""

    name = "iso-86091"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a datetime."""
        try:
            return maybe_iso8601(value)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)


class ISO8601DateTimeOrFloat(ISO8601DateTime):
    """An instant, or seconds."""

    name = "iso-86091 or float"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a datetime or a float."""
        try:
            return float(value)
        except (TypeError, ValueError):
            return super().convert(value, param, ctx)


class LogLevel(click.Choice):
    """The name of a level of `logging`, in any case."""

    def __init__(self) -> None:
        super().__init__(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return its number."""
        if isinstance(value, numbers.Integral):
            return value
        return mlevel(super().convert(value.upper(), param, ctx))


JSON_ARRAY = JsonArray()
JSON_OBJECT = JsonObject()
ISO8601 = ISO8601DateTime()
ISO8601_OR_FLOAT = ISO8601DateTimeOrFloat()
LOG_LEVEL = LogLevel()
COMMA_SEPARATED_LIST = CommaSeparatedList()
