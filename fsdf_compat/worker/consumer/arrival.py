"""A broker that is not there yet: its worker is ready when it answers, and says why it is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fsdf_engine import BrokerError, ServerRefused

from ..._app.places import broker_of
from ...utils.log import get_logger

__all__ = ["Arrival"]
logger = get_logger("celery.worker.consumer.consumer")
_AGAIN = (2.0, 32.0)  # seconds between two tries: more after each, and at most
SILENT = """\
consumer: Cannot connect: %s
Trying again in %.2f seconds...
"""


class Arrival:
    """Waits for an app's broker. Consumers try again by themselves; this tells when they can."""

    def __init__(self, app: Any) -> None:
        self._app, self._given_up = app, threading.Event()

    def then(self, call: Callable[[], object]) -> None:
        """Call when the broker answers: now, or else in a thread of its own. Blocks for one try."""
        if error := self._try():
            threading.Thread(
                target=self._wait, args=(error, call), name="celery-arrival", daemon=True
            ).start()
        else:
            call()

    def give_up(self) -> None:
        """Wait no more; nothing is called."""
        self._given_up.set()

    def _try(self) -> Exception | None:
        try:
            broker_of(self._app).check()
        except (BrokerError, ServerRefused) as error:
            return error
        return None

    def _wait(self, error: Exception | None, call: Callable[[], object]) -> None:
        pause = _AGAIN[0]
        while error:
            logger.error(SILENT, error, pause)
            if self._given_up.wait(pause):
                return
            pause = min(pause + _AGAIN[0], _AGAIN[1])
            error = self._try()
        call()
