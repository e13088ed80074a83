"""Messages that were published once, and wait again in every pass.

To publish what a fast worker runs in seconds takes minutes, to copy it on the server a moment. The
copies are the bytes that `delay` has stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .server import DATABASES, RedisServer

__all__ = ["Stock"]

STEP = 20_000  # published at least, of what is missing
PART = "stock"


class Stock:
    """What a server keeps in databases of its own, beyond those that are cleared."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._databases: dict[str, int] = {}

    def lay_out(
        self, name: str, queue: str, count: int, publish: Callable[[str, int, int], None]
    ) -> None:
        """Have the oldest `count` messages of the stock `name` wait in `queue`.

        Those that it lacks are published first: by `publish(url, first, end)`.

        Raises:
            RuntimeError: they did not come to lie in `queue`.
        """
        number = self._databases.setdefault(name, DATABASES + len(self._databases))
        stock: Any = self._server.database(number)
        if (have := stock.llen(queue)) < count:
            publish(self._server.address(number), have, have + max(count - have, min(STEP, count)))
            if stock.llen(queue) < count:
                raise RuntimeError(f"{name}: what was published did not come to lie in {queue!r}")
        stock.copy(queue, PART, destination_db=0)
        self._server.client.ltrim(PART, -count, -1)
        self._server.client.rename(PART, queue)
