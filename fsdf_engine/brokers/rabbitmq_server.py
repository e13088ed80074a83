"""What a server of RabbitMQ can do, by its version and by the arguments of a queue. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..contracts import Capability

__all__ = ["LIMIT", "LINES", "MOST", "Server", "Shape", "learn", "server_of"]

LINES = 12  # x-max-priority of queues that we make: 9..0, -3, -6 and -9 are 12..0
LIMIT = 1_000_000  # of deliveries: with one a quorum queue puts what is given back at the head
MOST = (
    Capability.LEASE | Capability.DELAY | Capability.PRIORITY | Capability.DEAD_LETTER
    | Capability.SIZE | Capability.SHARED | Capability.ORDERED | Capability.COUNTED
    | Capability.GREEN_SAFE
)  # fmt: skip
_INEQUIVALENT = re.compile(r"inequivalent arg '([^']+)' .*\bcurrent is (.*)\Z", re.DOTALL)
_VALUE = re.compile(r"(?:the value )?'(.*?)'(?: of type '(\w+)')?", re.DOTALL)


class Server(NamedTuple):
    """What a server has."""

    version: tuple[int, int] = (0, 0)
    quorum: bool = False
    safe_letters: bool = False  # quorum queues have times to live, and lose nothing at their end
    prior_quorum: bool = False  # they know priorities, and count lost leases apart from returns


def server_of(properties: Mapping[str, Any]) -> Server:
    """Read the properties with which a server introduces itself."""
    product, text = (_text(properties.get(name)) for name in ("product", "version"))
    found = re.match(r"(\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if "rabbit" not in product.lower():
        return Server(version)
    return Server(version, version >= (3, 8), version >= (3, 10), version >= (4, 3))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


class Shape(NamedTuple):
    """A queue as it is. `lines` is its x-max-priority, 0 without."""

    kind: str = "quorum"  # or "classic", "stream", "unknown"
    lines: int = 0
    returns: bool = True  # what is given back by nack is first in line, and never dropped
    ours: bool = True  # we may declare queues beside it
    own_lines: bool = False  # its priorities are counted as ours

    def capabilities(self, server: Server) -> Capability:
        """Return what can be done with it."""
        can, modern = MOST, self.kind == "quorum" and server.prior_quorum
        if not (self.lines or modern):
            can &= ~Capability.PRIORITY
        if not modern:
            can &= ~Capability.COUNTED
        if not self.returns:
            can &= ~Capability.ORDERED
        if not self.ours:
            can &= ~(Capability.DELAY | Capability.DEAD_LETTER)
        return can


def learn(arguments: dict[str, Any], text: str) -> dict[str, Any] | None:
    """Return the arguments of a queue nearer to what they are, by a refusal; None: it tells none.

    `durable` is among them. A server names the first argument that differs, and its value there.
    """
    if (found := _INEQUIVALENT.search(text)) is None:
        return None
    name, told = found.groups()
    changed = dict(arguments)
    if told.strip().startswith("none"):
        changed.pop(name, None)
    elif value := _VALUE.match(told):
        changed[name] = _value(value[1], value[2])
    else:
        return None
    return changed if changed != arguments else None


def _value(text: str, kind: str | None) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if kind != "longstr" and re.fullmatch(r"-?\d+", text) else text
