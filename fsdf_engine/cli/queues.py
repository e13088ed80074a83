"""`fsdf size` and `fsdf purge`: what queues hold, without their functions."""

from __future__ import annotations

import json
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from datetime import datetime

from ..contracts import Broker, Capability
from ..engine import default_engine
from ..errors import ConfigurationError, Unavailable
from ..spelling import did_you_mean
from .output import Commands, agreed, plain, show_rows, table
from .progress import progress

__all__ = ["add_command", "add_to", "broker_of", "hint", "queues_of"]
_EVERY, LEAST = 2.0, 0.1  # seconds


def add_to(commands: Commands) -> None:
    """Add the commands."""
    size = add_command(commands, "size", _size, "count the messages of queues", queues="*")
    size.add_argument("--json", action="store_true", help="for programs")
    size.add_argument(
        "--watch", nargs="?", const=f"{_EVERY:g}", metavar="SECONDS",
        help=f"again and again (default: every {_EVERY:g} s), until Ctrl-C",
    )  # fmt: skip
    text = "delete what waits in a queue, delayed messages too"
    purge = add_command(commands, "purge", _purge, text)
    purge.add_argument("--yes", "-y", action="store_true", help="do not ask")


def add_command(
    commands: Commands, name: str, run: Callable[[Namespace], int], help: str, queues: str = ""
) -> ArgumentParser:
    """Add a command on one queue, or with `queues` on as many as that says; none means all."""
    command = commands.add_parser(name, help=help, description=help)
    if queues:
        command.add_argument("queues", nargs=queues, metavar="QUEUE", help="default: every queue")
    else:
        command.add_argument("queue", metavar="QUEUE")
    command.add_argument("--broker", metavar="KIND", help="default: BROKER_KIND")
    command.add_argument("--url", help="the broker's server or file; default: as configured")
    command.set_defaults(run=run)
    return command


def broker_of(options: Namespace) -> Broker:
    """Return the broker that a command is about."""
    return default_engine().broker(options.broker, options.url)


def queues_of(broker: Broker, named: Sequence[str]) -> Sequence[str]:
    """Return the queues that are named, or every one that holds anything. Asks the server.

    Raises:
        ConfigurationError: none is named, and the broker cannot list them.
    """
    if named:
        return named
    broker.check()
    if Capability.LISTED not in broker.capabilities:
        raise ConfigurationError(
            f"{broker.address} cannot list its queues; name those that are meant"
        )
    return broker.queues()


def hint(broker: Broker, queue: str) -> None:
    """Say where a queue holds nothing, and which one may have been meant."""
    if queue in (known := broker.queues()):
        return
    suggestion = did_you_mean(queue, known)
    meant = suggestion if suggestion.startswith("; did") else ""
    said = f"fsdf: queue {plain(queue)!r} holds nothing ({broker.address}){meant}"
    print(said, file=sys.stderr)


def _size(options: Namespace) -> int:
    seconds = _seconds(options)
    broker = broker_of(options)
    if seconds:
        return _watch(broker, options, seconds)
    rows = _sizes(broker, options.queues)
    if not rows and not options.json:
        print(f"no queue holds anything ({broker.address})")
        return 0
    show_rows(rows if options.json else _shown(rows), as_json=options.json)
    for row in rows:  # a program that polls has its names right, and a search has its price
        counts = [value for value in row.values() if type(value) is int]
        if not options.json and not any(count > 0 for count in counts):
            hint(broker, str(row["queue"]))
    return 0


def _seconds(options: Namespace) -> float:
    """Return how often to look; what follows --watch and is no number is the name of a queue."""
    if options.watch is None:
        return 0.0
    try:
        seconds = float(options.watch)
    except ValueError:
        options.queues.insert(0, options.watch)
        return _EVERY
    if not LEAST <= seconds <= threading.TIMEOUT_MAX:
        raise ConfigurationError(f"--watch {options.watch}: give at least {LEAST:g} seconds")
    return seconds


def _sizes(broker: Broker, queues: Sequence[str]) -> list[dict[str, object]]:
    return [{"queue": q, **broker.size(q)._asdict()} for q in queues_of(broker, queues)]


def _shown(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Return rows for people: of what cannot be counted nothing is known."""
    return [{name: "?" if value == -1 else value for name, value in row.items()} for row in rows]


def _watch(broker: Broker, options: Namespace, seconds: float) -> int:
    """Show the sizes until Ctrl-C: in place on a terminal, else a line for each."""
    pause = threading.Event()
    draw = _drawing() if sys.stdout.isatty() and not options.json else _append(options.json)
    try:
        while True:
            rows, trouble = [], ""
            try:
                rows = _sizes(broker, options.queues)
            except Unavailable as error:  # it may come back
                trouble = str(error)
            rows = rows if options.json else _shown(rows)
            draw(rows, trouble or ("" if rows else f"no queue holds anything ({broker.address})"))
            pause.wait(seconds)  # without end: whoever watches ends it
    except KeyboardInterrupt:
        return 0
    finally:
        draw([], None)


_Draw = Callable[[Sequence["dict[str, object]"], "str | None"], None]


def _drawing() -> _Draw:
    from rich.live import Live
    from rich.text import Text

    live = Live(auto_refresh=False)
    live.start()

    def draw(rows: Sequence[dict[str, object]], message: str | None) -> None:
        if message is None:
            live.stop()
            return
        now = f"{datetime.now():%H:%M:%S}"
        live.update(Text("\n".join([*table(rows), f"{now}  {message}".rstrip()])), refresh=True)

    return draw


def _append(as_json: bool) -> _Draw:
    def draw(rows: Sequence[dict[str, object]], message: str | None) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        if as_json and message is not None:
            print(json.dumps({"at": now, "queues": rows}, ensure_ascii=False), flush=True)
            return
        for row in rows:
            counts = (f"{name} {count}" for name, count in row.items() if name != "queue")
            print(now, plain(row["queue"], ""), *counts, sep="  ", flush=True)
        if message:
            print(now, message, sep="  ", flush=True)

    return draw


def _purge(options: Namespace) -> int:
    broker = broker_of(options)
    size = broker.size(options.queue)
    count = max(size.waiting, 0) + max(size.delayed, 0)
    if not count:
        hint(broker, options.queue)
    if not agreed(f"delete what waits in queue {options.queue!r} ({count})?", options.yes):
        return 1
    with progress(f"deleting {count} messages"):
        deleted = broker.purge(options.queue)
    print(f"deleted {deleted}")
    return 0
