"""`fsdf dead`: the messages that could not be handled."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from ..contracts import Again, Broker, Capability, DeadMessage, Part
from ..core.forms import replays
from ..engine import default_engine
from .arguments import whole
from .output import Commands, agreed, plain, show_json, show_rows
from .progress import progress
from .queues import add_command, broker_of, hint, queues_of

__all__ = ["add_to"]

_PAGE = 100
_STEP = 500  # dead letters replayed at a time where progress is shown
_SEEN = 1000  # the oldest ones, which a broker without BROWSE shows; one reader at a time


def add_to(commands: Commands) -> None:
    """Add the commands."""
    dead = commands.add_parser("dead", help="messages that could not be handled")
    deads = dead.add_subparsers(metavar="COMMAND", required=True)
    listed = add_command(deads, "list", _list, "list the newest dead letters", queues="*")
    listed.add_argument("--limit", type=whole(1), default=20, metavar="N")
    listed.add_argument("--offset", type=whole(0), default=0, metavar="N")
    listed.add_argument("--json", action="store_true", help="for programs")
    shown = add_command(deads, "show", _show, "show dead letters whole, with their tracebacks")
    shown.add_argument("ids", nargs="+", metavar="ID")
    shown.add_argument("--json", action="store_true", help="for programs")
    text = "put dead letters back in line; all without ids"
    replay = add_command(deads, "replay", _replay, text)
    replay.add_argument("ids", nargs="*", metavar="ID")
    replay.add_argument("--yes", "-y", action="store_true", help="do not ask")
    delete = add_command(deads, "purge", _purge, "delete the dead letters of a queue")
    delete.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _list(options: Namespace) -> int:
    broker = broker_of(options)
    queues = queues_of(broker, options.queues)
    end = options.offset + options.limit
    found = [(queue, letter) for queue in queues for letter in broker.dead_letters(queue, end)]
    found.sort(key=lambda pair: -pair[1].died_at)  # which keeps the order within a queue
    rows = [_row(queue, letter) for queue, letter in found[options.offset : end]]
    if options.json:
        show_json(rows)
        return 0
    columns = ("queue", "id", "task_id", "died_at", "reason", "body")[len(options.queues) == 1 :]
    show_rows([{name: row[name] for name in columns} for row in rows], as_json=False)
    if (total := sum(broker.size(queue).dead for queue in queues)) > len(rows):
        seen = all(_browses(broker, queue) for queue in queues)
        bound = "" if seen else f"; of a queue the {_SEEN} oldest can be seen"
        print(f"({len(rows)} of {total}{bound})")
    if not total:
        for queue in options.queues:
            hint(broker, queue)
    return 0


def _show(options: Namespace) -> int:
    named, wanted = _named(broker_of(options), options.queue, options.ids)
    found = [_row(options.queue, letter) for letter in named]
    if options.json:
        show_json(found)
    else:
        for row in found:
            print("\n".join(f"{key}: {plain(value)}" for key, value in row.items()))
    return _missing(wanted, options.queue)


def _replay(options: Namespace) -> int:
    broker, queue = broker_of(options), options.queue
    if options.ids:
        named, missing = _named(broker, queue, options.ids)
        count = broker.replay(queue, [letter.id for letter in named], _again())
        print(f"replayed {count}")
        return _missing(missing, queue)
    total = broker.size(queue).dead
    if not total:
        hint(broker, queue)
    if not agreed(f"replay all dead letters of queue {queue!r} ({total})?", options.yes):
        return 1
    with progress("replaying", total) as tell:
        in_steps = sys.stderr.isatty() and total > _STEP and _browses(broker, queue)
        count = (
            _replay_in_steps(broker, queue, total, tell)
            if in_steps
            else broker.replay(queue, None, _again())
        )
    print(f"replayed {count}")
    return 0


def _replay_in_steps(broker: Broker, queue: str, total: int, tell: Callable[[int], None]) -> int:
    """Replay up to `total`, the oldest first as in one go, and tell of each step. Sends."""
    done = 0
    while done < total:
        offset = max(0, broker.size(queue).dead - _STEP)  # the newest come first
        oldest = [letter.id for letter in broker.dead_letters(queue, _STEP, offset)]
        count = broker.replay(queue, oldest[::-1], _again())
        if not count:
            break
        done += count
        tell(count)
    return done


def _purge(options: Namespace) -> int:
    broker = broker_of(options)
    count = broker.size(options.queue).dead
    if not count:
        hint(broker, options.queue)
    if not agreed(f"delete the dead letters of queue {options.queue!r} ({count})?", options.yes):
        return 1
    with progress(f"deleting {count} dead letters"):
        deleted = broker.purge(options.queue, Part.DEAD)
    print(f"deleted {deleted}")
    return 0


def _named(broker: Broker, queue: str, ids: Sequence[str]) -> tuple[list[DeadMessage], set[str]]:
    """Return the dead letters of these ids, their own or their tasks', and the ids of none."""
    wanted, missing, found = set(ids), set(ids), []
    for letter in _letters(broker, queue):
        if mine := wanted & {letter.id, _task_id(letter)}:
            missing -= mine
            found.append(letter)
        if not missing:
            break
    return found, missing


def _task_id(letter: DeadMessage) -> str:
    for codec in default_engine().codecs:
        try:
            if found := codec.envelope(letter.body, None):
                return str(found[0].get("task_id", ""))
        except Exception:  # what it holds is why it is dead, perhaps
            break
    return ""


def _again() -> Again:
    return replays(default_engine().codecs)


def _browses(broker: Broker, queue: str) -> bool:
    return Capability.BROWSE in broker.capabilities_of(queue)


def _letters(broker: Broker, queue: str) -> Iterator[DeadMessage]:
    if not _browses(broker, queue):
        yield from broker.dead_letters(queue, _SEEN)
        return
    offset = 0
    while page := broker.dead_letters(queue, _PAGE, offset):
        yield from page
        offset += len(page)


def _row(queue: str, letter: DeadMessage) -> dict[str, object]:
    died = datetime.fromtimestamp(letter.died_at).astimezone().isoformat(timespec="seconds")
    body = letter.body.decode(errors="backslashreplace")
    return {
        "queue": queue,
        "id": letter.id,
        "task_id": _task_id(letter),
        "died_at": died,
        "reason": letter.reason,
        "body": body,
        "trace": letter.trace,
    }


def _missing(ids: set[str], queue: str) -> int:
    for id in sorted(ids):
        print(f"fsdf: queue {queue!r} has no dead letter {id!r}", file=sys.stderr)
    return 1 if ids else 0
