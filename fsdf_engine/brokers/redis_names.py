"""Which queues a Redis holds: their keys are looked for, for nothing keeps a list of them.

A set of names, written by every push, would cost the hot path, and would not know of the lists and
streams that other programs make.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

from redis.crc import key_slot

from .redis_connection import Command, Connection, Connections, failure

__all__ = ["holding"]

PAGE = 1000  # keys per SCAN: bounds how long one command holds the server
CHUNK = 200  # sizes per write
# Keys beside the queue's own; those in the second group show that it holds something.
_SIDE = re.compile(
    rb"\{(.*)\}:(?:(again|delayed|leases|claims|dead|[ps]:-?[1-9]|below:(?!owners).*)"
    rb"|owners|below:owners|bell|(?:o|bell):.*)",
    re.DOTALL,
)


def holding(connections: Connections, kind: str, size: Callable[[str], Command]) -> list[str]:
    """Return the queues, sorted, of which the command `size(queue)` counts anything.

    `kind` is the type of a queue's own key. O(keys of the server), in pages; then O(queues).
    """
    found: set[str] = set()
    for connection in _nodes(connections):
        sides = map(_SIDE.fullmatch, _keys(connection, "MATCH", "{*}:*"))
        names = {side[1] for side in sides if side and side[2]}
        names.update(key for key in _keys(connection, "TYPE", kind) if not _SIDE.fullmatch(key))
        for name in names:
            with contextlib.suppress(UnicodeDecodeError):  # no name that a task could have
                found.add(name.decode())
    return sorted(_filled(connections, sorted(found), size))


def _keys(connection: Connection, *those: str) -> Iterator[bytes]:
    cursor: Any = 0
    while True:
        [(cursor, keys)] = connection.call(("SCAN", cursor, "COUNT", PAGE, *those))
        yield from keys
        if int(cursor) == 0:
            return


def _filled(
    connections: Connections, names: list[str], size: Callable[[str], Command]
) -> Iterator[str]:
    by_connection: dict[Connection, list[str]] = {}
    for name in names:
        by_connection.setdefault(connections.to(name), []).append(name)
    for connection, some in by_connection.items():
        rest = iter(some)
        while chunk := list(islice(rest, CHUNK)):
            for name, reply in zip(chunk, connection.exchange([size(name) for name in chunk])):
                if error := failure(reply):
                    if "WRONGTYPE" in str(error):
                        continue  # a queue of another broker
                    raise error
                if any(reply):
                    yield name


def _nodes(connections: Connections) -> Sequence[Connection]:
    """Return a connection to each node that has keys."""
    if not connections.many:
        return [connections.to()]
    [ranges] = connections.to("").call(("CLUSTER", "SLOTS"))
    first: dict[Any, range] = {}
    for low, high, master, *_ in ranges:
        first.setdefault((master[0], master[1]), range(low, high + 1))
    return [connections.to(_key_in(slots)) for slots in first.values()]


def _key_in(slots: range) -> str:
    return next(str(n) for n in count() if key_slot(str(n).encode()) in slots)
