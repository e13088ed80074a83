"""`fsdf size`, `fsdf purge` and `fsdf dead`: what a queue holds, without its functions."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from datetime import datetime

from ..contracts import Broker, DeadMessage, Part
from ..engine import default_engine
from .output import Commands, agreed, plain, show_rows

__all__ = ["add_to"]

_PAGE = 100


def add_to(commands: Commands) -> None:
    """Add the commands."""
    size = _add(commands, "size", _size, "count the messages of queues", queues="+")
    size.add_argument("--json", action="store_true")
    purge = _add(commands, "purge", _purge, "delete what waits in a queue, delayed messages too")
    purge.add_argument("--yes", action="store_true", help="do not ask")

    dead = commands.add_parser("dead", help="messages that could not be handled")
    deads = dead.add_subparsers(metavar="COMMAND", required=True)
    listed = _add(deads, "list", _list, "list the newest dead letters of a queue")
    listed.add_argument("--limit", type=int, default=20, metavar="N")
    listed.add_argument("--offset", type=int, default=0, metavar="N")
    listed.add_argument("--json", action="store_true")
    shown = _add(deads, "show", _show, "show dead letters whole, with their tracebacks")
    shown.add_argument("ids", nargs="+", metavar="ID")
    shown.add_argument("--json", action="store_true")
    replay = _add(deads, "replay", _replay, "put dead letters back in line; all without ids")
    replay.add_argument("ids", nargs="*", metavar="ID")
    delete = _add(deads, "purge", _purge_dead, "delete the dead letters of a queue")
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _add(
    commands: Commands, name: str, run: Callable[[Namespace], int], help: str, queues: str = ""
) -> ArgumentParser:
    command = commands.add_parser(name, help=help, description=help)
    if queues:
        command.add_argument("queues", nargs=queues, metavar="QUEUE")
    else:
        command.add_argument("queue", metavar="QUEUE")
    command.add_argument("--broker", metavar="KIND", help="default: BROKER_KIND")
    command.add_argument("--url", help="the broker's server or file; default: as configured")
    command.set_defaults(run=run)
    return command


def _broker(options: Namespace) -> Broker:
    return default_engine().broker(options.broker, options.url)


def _size(options: Namespace) -> int:
    broker = _broker(options)
    rows = []
    for queue in options.queues:
        size = broker.size(queue)
        rows.append({"queue": queue, **size._asdict()})
    show_rows(rows, as_json=options.json)
    return 0


def _purge(options: Namespace) -> int:
    broker = _broker(options)
    size = broker.size(options.queue)
    count = max(size.waiting, 0) + max(size.delayed, 0)
    if not agreed(f"delete what waits in queue {options.queue!r} ({count})?", options.yes):
        return 1
    print(f"deleted {broker.purge(options.queue)}")
    return 0


def _list(options: Namespace) -> int:
    broker = _broker(options)
    letters = broker.dead_letters(options.queue, options.limit, options.offset)
    if options.json:
        show_rows([_row(letter) for letter in letters], as_json=True)
        return 0
    columns = ("id", "died_at", "reason", "body")
    show_rows([{k: _row(letter)[k] for k in columns} for letter in letters], as_json=False)
    if (total := broker.size(options.queue).dead) > len(letters):
        print(f"({len(letters)} of {total})")
    return 0


def _show(options: Namespace) -> int:
    wanted, found = set(options.ids), []
    for letter in _letters(_broker(options), options.queue):
        if letter.id in wanted:
            wanted.remove(letter.id)
            found.append(_row(letter))
        if not wanted:
            break
    if options.json:
        show_rows(found, as_json=True)
    else:
        for row in found:
            print("\n".join(f"{key}: {plain(value)}" for key, value in row.items()))
    return _missing(wanted, options.queue)


def _replay(options: Namespace) -> int:
    broker = _broker(options)
    count = broker.replay(options.queue, options.ids or None)
    print(f"replayed {count}")
    return 1 if count < len(set(options.ids)) else 0


def _purge_dead(options: Namespace) -> int:
    broker = _broker(options)
    count = broker.size(options.queue).dead
    if not agreed(f"delete the dead letters of queue {options.queue!r} ({count})?", options.yes):
        return 1
    print(f"deleted {broker.purge(options.queue, Part.DEAD)}")
    return 0


def _letters(broker: Broker, queue: str) -> Iterator[DeadMessage]:
    offset = 0
    while page := broker.dead_letters(queue, _PAGE, offset):
        yield from page
        offset += len(page)


def _row(letter: DeadMessage) -> dict[str, object]:
    died = datetime.fromtimestamp(letter.died_at).astimezone().isoformat(timespec="seconds")
    body = letter.body.decode(errors="backslashreplace")
    return {
        "id": letter.id,
        "died_at": died,
        "reason": letter.reason,
        "body": body,
        "trace": letter.trace,
    }


def _missing(ids: set[str], queue: str) -> int:
    for id in sorted(ids):
        print(f"fsdf: queue {queue!r} has no dead letter {id!r}", file=sys.stderr)
    return 1 if ids else 0
