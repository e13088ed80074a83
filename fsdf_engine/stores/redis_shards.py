"""Where a store's keys lie: on a cluster in one of a few hash tags, each with a connection."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..brokers.redis_connection import Connection, Connections, Script

__all__ = ["Shard", "Shards"]

_SHARDS = 16


class Shard(NamedTuple):
    """A hash tag of a cluster, or the whole of a server."""

    connection: Connection
    prefix: str  # of its keys

    def key(self, name: str) -> str:
        """Return the key of what is called `name` in this shard."""
        return self.prefix + name


class Shards:
    """The keys of one store, and the connections that lead to them."""

    def __init__(self, url: str, scripts: Sequence[Script]) -> None:
        self.connections = Connections(url, scripts)

    def of(self, id: str) -> Shard:
        """Return the shard of what belongs to an id."""
        if not self.connections.many:
            return Shard(self.connections.to(), "fsdf:")
        return self._shard(zlib.crc32(id.encode("utf-8", "surrogatepass")) % _SHARDS)

    def _shard(self, number: int) -> Shard:
        tag = f"{{fsdf:{number}}}"
        return Shard(self.connections.to(tag), f"{tag}:")

    def all(self) -> Sequence[Shard]:
        """Return every shard."""
        if not self.connections.many:
            return [Shard(self.connections.to(), "fsdf:")]
        return [self._shard(number) for number in range(_SHARDS)]

    def split(self, ids: Sequence[str]) -> Mapping[Shard, list[int]]:
        """Return the positions of the ids by their shards; none for no ids."""
        if not self.connections.many:
            return {self.of(""): list(range(len(ids)))} if ids else {}
        places: defaultdict[Shard, list[int]] = defaultdict(list)
        for n, id in enumerate(ids):
            places[self.of(id)].append(n)
        return places
