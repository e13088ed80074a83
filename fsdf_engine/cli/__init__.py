"""The command `fsdf`: configuration, queues, dead letters and the worker."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

from ..config import check_environment
from ..errors import FsdfError

__all__ = ["main", "parser"]

_EPILOG = """\
examples:
  fsdf run tasks.py             a worker for every task that tasks.py declares
  fsdf run -- python app.py     a program whose `import celery` means fsdf
  fsdf size --watch             what every queue holds, again and again
  fsdf dead list                what could not be handled, and why
  fsdf COMMAND -h               the options of a command

exit codes:
  0  done            1  there is no such thing, or the answer was no
  2  an error, told on stderr       130  Ctrl-C; 128 + n: a second signal n ended `run`
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 "no such thing", 2 an error, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["celery"]:  # its options are its own
        return _celery(given[1:])
    if given[:2] == ["run", "--"]:
        return _run_as_celery(given[2:])
    if given[:1] == ["migrate"]:
        return _migrate(given[1:])
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    options = parser().parse_args(given)
    try:
        if options.checks:
            check_environment()  # a worker would meet it later, where nobody looks
        return int(options.run(options))
    except FsdfError as error:
        from .failures import show

        show(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `fsdf dead list q | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser; each parsed command has its function as `run`."""
    from . import cancel, dead, queues, settings, sql, work
    from .arguments import Parser

    top = Parser(
        prog="fsdf",
        description="Any function as a distributed task.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(checks=True)
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    work.add_to(commands)
    queues.add_to(commands)
    dead.add_to(commands)
    cancel.add_to(commands)
    settings.add_to(commands)
    sql.add_to(commands)
    commands.add_parser("celery", help="the commands of Celery, run by fsdf", add_help=False)
    commands.add_parser(
        "migrate",
        help="`migrate check PATH`: what of a project's Celery works here",
        add_help=False,
    )
    return top


def _version() -> str:
    try:
        version = metadata.version("fsdf")
    except metadata.PackageNotFoundError:  # a checkout on the path
        version = "of a checkout"
    return f"fsdf {version} (Python {platform.python_version()}, {sys.platform})"


def _celery(arguments: Sequence[str]) -> int:
    layer = _layer()
    if layer is None:
        return 2
    layer.activate()
    layer.maybe_patch_concurrency(["celery", *arguments])
    return int(import_module("fsdf_compat.bin.celery").main(arguments) or 0)


def _run_as_celery(command: Sequence[str]) -> int:
    """Become a command for which `import celery` means this package; return only if it fails."""
    layer = _layer()
    if layer is None:
        return 2
    layer.activate()  # and with it the environment
    try:
        os.execvp(command[0], list(command))
    except IndexError:
        print("fsdf: run -- needs a command, such as: run -- python app.py", file=sys.stderr)
    except OSError as error:
        print(f"fsdf: {command[0]}: {error.strerror}", file=sys.stderr)
    return 2


def _migrate(arguments: Sequence[str]) -> int:
    if _layer() is None:
        return 2
    if arguments[:1] != ["check"]:
        print("usage: fsdf migrate check [PATH]", file=sys.stderr)
        return 2
    return int(import_module("fsdf_compat._migrate.report").main(arguments[1:]))


def _layer() -> Any:
    try:
        return import_module("fsdf_compat")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("fsdf_compat"):
            raise
        print("fsdf: this installation has no Celery layer", file=sys.stderr)
        return None
