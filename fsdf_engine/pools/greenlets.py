"""Greenlet pools: the slots of the thread pool on gevent's or eventlet's greenlets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .. import green
from ..contracts import PoolCapability
from ..core.slots import Carrier, Slot
from ..errors import ConfigurationError
from .base import SlotPool

__all__ = ["EventletPool", "GeventPool", "GreenCarrier", "GreenletPool"]

log = logging.getLogger("fsdf.pools")


class GreenCarrier(Carrier):
    """A greenlet per slot. Slots run in one hub; whoever talks to them may be any thread."""

    turn = 100  # jobs without a switch of their own, then I/O has its turn

    def __init__(self) -> None:
        self._hub = green.hub()

    def start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        self._hub.call(self._start, slot, live)

    def _start(self, slot: Slot, live: Callable[[Slot], None]) -> None:
        slot.handle = self._hub.spawn(live, slot)

    def park(self, slot: Slot, timeout: float | None) -> bool:
        while True:
            try:
                if timeout is None:
                    self._hub.await_unpark()
                    return True
                return self._hub.park(timeout)
            except BaseException as error:  # a timer or a kill that an ended run left behind
                log.debug("a late exception has reached an idle slot", extra={"error": repr(error)})
                if timeout is None:
                    return True

    def unpark(self, slot: Slot) -> None:
        self._hub.unpark(slot.handle)

    def pause(self) -> None:
        try:
            self._hub.pause()
        except BaseException as error:  # as in `park`
            log.debug("a late exception has reached a pausing slot", extra={"error": repr(error)})

    def throw(self, slot: Slot, job: Any, error: BaseException) -> bool:
        self._hub.call(self._deliver, slot, job, error)
        return True

    def _deliver(self, slot: Slot, job: Any, error: BaseException) -> None:
        """Raise where the run waits. In the hub, so that no run is in the middle of its end."""
        if slot.job is job:
            slot.handle.throw(error)


class GreenletPool(SlotPool):
    """Runs jobs in up to `size` greenlets of the native thread that makes the pool.

    An interrupt arrives where the run waits next; one that never waits cannot be reached.

    Raises:
        ConfigurationError: the library's monkey-patching is missing.
    """

    capabilities = PoolCapability.GREEN
    library = ""
    patch = ""  # the line that has to come first in the user's program

    def __init__(self, size: int, keep_alive: float = 60.0) -> None:
        if green.active_hub() != self.library:
            raise ConfigurationError(
                f"{self.library} has not patched threads and sockets; "
                f"put this before every other import of your script: {self.patch}"
            )
        super().__init__(size, keep_alive, GreenCarrier())


class GeventPool(GreenletPool):
    """Runs jobs in gevent's greenlets."""

    library = "gevent"
    patch = "from gevent import monkey; monkey.patch_all()"


class EventletPool(GreenletPool):
    """Runs jobs in eventlet's greenlets."""

    library = "eventlet"
    patch = "import eventlet; eventlet.monkey_patch()"
