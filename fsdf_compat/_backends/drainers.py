"""How results arrive for who waits: in his own thread, or in a greenlet for all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from .._upward import LateModule
from ..utils.threads import THREAD_TIMEOUT_MAX

__all__ = [
    "E_CELERY_RESTART_REQUIRED", "Drainer", "EventletAdaptedEvent", "drainers", "eventletDrainer",
    "geventDrainer", "greenletDrainer", "register_drainer",
]  # fmt: skip
E_CELERY_RESTART_REQUIRED = "Celery must be restarted because a shutdown signal was detected."
_LOST = "Drainer: connection error during drain_events, will retry on next loop iteration."
_here = LateModule("backends.asynchronous")
drainers: dict[str, type[Drainer]] = {}


def register_drainer(name: str) -> Callable[[type[Drainer]], type[Drainer]]:
    """Return a decorator of the class that drains in an environment of kombu's."""

    def register(cls: type[Drainer]) -> type[Drainer]:
        drainers[name] = cls
        return cls

    return register


@register_drainer("default")
class Drainer:
    """Receives results in the thread that waits."""

    def __init__(self, result_consumer: Any) -> None:
        self.result_consumer = result_consumer

    def start(self) -> None:
        """Begin to receive, where that is another thread's work."""

    def stop(self) -> None:
        """Stop receiving."""

    def drain_events_until(
        self,
        p: Any,
        timeout: float | None = None,
        interval: float = 1,
        on_interval: Any = None,
        wait: Any = None,
    ) -> Iterator[Any]:
        """Receive until a promise is fulfilled, and yield after each time. Blocks.

        Raises:
            TimeoutError: `timeout` seconds have passed.
        """
        wait = wait or self.result_consumer.drain_events
        started = time.monotonic()
        while not p.ready:
            if timeout is not None and time.monotonic() - started >= timeout:
                raise TimeoutError
            try:
                yield self.wait_for(p, wait, timeout=interval)
            except TimeoutError:
                pass
            except OSError:  # what was not healed below: not at full speed
                logging.warning(_LOST, exc_info=True)
                _here.time.sleep(interval)
            if on_interval:
                on_interval()

    def wait_for(self, p: Any, wait: Any, timeout: float | None = None) -> Any:
        """Receive once."""
        wait(timeout=timeout)

    def _event(self) -> Any:
        return Event()


class greenletDrainer(Drainer):
    """Receives results in a greenlet of its own, for all that wait."""

    spawn: Any = None
    _exc: BaseException | None = None
    _g: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started, self._stopped, self._shutdown = self._event(), self._event(), self._event()
        self._drain_complete_event = self._event()  # a new one each time

    def _send_drain_complete_event(self) -> None:
        self._drain_complete_event.set()
        self._drain_complete_event = self._event()

    def run(self) -> None:
        """Receive until stopped. The greenlet's function."""
        self._started.set()
        try:
            while not self._stopped.is_set():
                try:
                    self.result_consumer.drain_events(timeout=1)
                    self._send_drain_complete_event()
                except TimeoutError:
                    pass
                except OSError:
                    logging.warning(_LOST, exc_info=True)
                    _here.time.sleep(1)  # nothing tells that it is there again
        except Exception as error:
            self._exc = error
            raise
        finally:
            self._send_drain_complete_event()
            try:
                self._shutdown.set()
            except RuntimeError as error:
                logging.error("Failed to set shutdown event: %s", error)

    def start(self) -> None:
        """Start the greenlet, once."""
        self._ensure_not_shut_down()
        if not self._started.is_set():
            self._g = self.spawn(self.run)
            self._started.wait()

    def stop(self) -> None:
        """Let it end."""
        self._stopped.set()
        self._shutdown.wait(THREAD_TIMEOUT_MAX)

    def wait_for(self, p: Any, wait: Any, timeout: float | None = None) -> None:
        """Wait until it has received something."""
        self.start()
        if not p.ready:
            self._drain_complete_event.wait(timeout=timeout)
            self._ensure_not_shut_down()

    def _ensure_not_shut_down(self) -> None:
        if self._shutdown.is_set():
            raise self._exc or Exception(E_CELERY_RESTART_REQUIRED)


class EventletAdaptedEvent:
    """An event of eventlet's, as others look."""

    def __init__(self) -> None:
        import eventlet

        self.evt = eventlet.Event()

    def is_set(self) -> Any:
        """Say whether it has happened."""
        return self.evt.ready()

    def set(self) -> Any:
        """Let it happen."""
        return self.evt.send()

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for it."""
        return self.evt.wait(timeout)


@register_drainer("eventlet")
class eventletDrainer(greenletDrainer):
    """Receives results under eventlet."""

    def spawn(self, func: Any) -> Any:
        """Start a greenlet."""
        import eventlet

        started = eventlet.spawn(func)
        eventlet.sleep(0)
        return started

    def _event(self) -> Any:
        return EventletAdaptedEvent()


@register_drainer("gevent")
class geventDrainer(greenletDrainer):
    """Receives results under gevent."""

    def spawn(self, func: Any) -> Any:
        """Start a greenlet."""
        import gevent

        started = gevent.spawn(func)
        gevent.sleep(0)
        return started

    def _event(self) -> Any:
        import gevent.event

        return gevent.event.Event()
