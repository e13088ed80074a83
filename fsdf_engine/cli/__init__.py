"""The command `fsdf`: configuration, queues, dead letters and the worker."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import FsdfError

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 "no such thing", 2 an error, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["celery"]:  # its options are its own
        return _celery(given[1:])
    options = parser().parse_args(given)
    try:
        return int(options.run(options))
    except FsdfError as error:
        print(f"fsdf: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `fsdf dead list q | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser; each parsed command has its function as `run`."""
    from . import queues, settings, work

    top = argparse.ArgumentParser(prog="fsdf", description="Any function as a distributed task.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    settings.add_to(commands)
    queues.add_to(commands)
    work.add_to(commands)
    commands.add_parser("celery", help="the commands of Celery, run by fsdf", add_help=False)
    return top


def _celery(arguments: Sequence[str]) -> int:
    try:
        celery = import_module("fsdf_compat.bin.celery").main
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("fsdf_compat"):
            raise
        print("fsdf: this installation has no Celery layer", file=sys.stderr)
        return 2
    return int(celery(arguments) or 0)
