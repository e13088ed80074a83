"""Events for whoever wants to know; a failing listener harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["EVENTS", "Listener", "Listeners"]
log = logging.getLogger("fsdf.listeners")

Listener: TypeAlias = Callable[..., object]
EVENTS = {
    "consumer_started": "queue",
    "consumer_stopped": "queue",
    # texts of a failure are in the outcome; what a child returned stays there
    "run_ended": "job, outcome; from the outbox's thread, after the effects are stored",
}


class Listeners:
    """Who listens to what. Registration is meant for start-up; emitting copies nothing."""

    def __init__(self) -> None:
        self._by_event: dict[str, tuple[Listener, ...]] = {}

    def add(self, event: str, listener: Listener) -> None:
        """Call `listener(**facts)` at each such event, in the thread where it happens.

        Raises:
            ValueError: there is no such event.
        """
        if event not in EVENTS:
            raise ValueError(f"unknown event {event!r}; there are {', '.join(EVENTS)}")
        self._by_event[event] = (*self._by_event.get(event, ()), listener)

    def wants(self, event: str) -> bool:
        """Say whether anybody listens."""
        return event in self._by_event

    def emit(self, event: str, **facts: Any) -> None:
        """Tell everybody; their errors are logged."""
        for listener in self._by_event.get(event, ()):
            try:
                listener(**facts)
            except BaseException:  # SystemExit, too, would end the thread of the outbox
                log.exception("a listener of %s failed; the others are told", event)
