"""`fsdf cancel`: messages that are not to be run any more."""

from __future__ import annotations

from argparse import Namespace

from ..engine import default_engine
from ..options import TaskOptions
from .arguments import number
from .output import Commands

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Add the command."""
    text = "have messages of tasks with cancellable=True not run, if they have not started"
    command = commands.add_parser("cancel", help=text, description=text)
    command.add_argument("ids", nargs="+", metavar="ID", help="task ids")
    command.add_argument("--broker", metavar="KIND", help="default: BROKER_KIND")
    command.add_argument("--url", help="the broker's server or file; default: as configured")
    command.add_argument(
        "--life", type=number(0.001, "seconds"), metavar="SECONDS",
        help="how long this is remembered; default: as long as results",
    )  # fmt: skip
    command.set_defaults(run=_cancel)


def _cancel(options: Namespace) -> int:
    of = TaskOptions(broker_kind=options.broker, broker_url=options.url)
    default_engine().cancel(options.ids, of, options.life)
    print(f"marked {len(set(options.ids))} as cancelled; what has started, or ended, is as it is")
    return 0
