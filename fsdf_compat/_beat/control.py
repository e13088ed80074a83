"""Beat's answer to `celery inspect ping`."""

from __future__ import annotations

import threading
import time
from typing import Any

from kombu import pidbox
from kombu.common import ignore_errors
from kombu.utils.encoding import safe_str

from .._app.ear import Ear
from ..utils.collections import AttributeDict
from ..utils.nodenames import default_nodename, host_format
from .scheduler import late

__all__ = ["NODENAME_DEFAULT", "BeatPidbox", "beat_nodename"]
NODENAME_DEFAULT = "celerybeat"


def beat_nodename(hostname: str | None = None) -> str:
    """Return the name by which beat answers; `hostname` is taken as a worker's is."""
    return host_format(default_nodename(hostname, NODENAME_DEFAULT))


class _Stopping(BaseException):
    """Ends an attempt to connect; no Exception, which kombu would take for a failed one."""


class _Node(pidbox.Node):
    """Says nothing while the scheduler hangs: a probe sees silence only."""

    beat_pidbox: Any = None

    def dispatch(self, method: str, *args: Any, **kwargs: Any) -> Any:
        owner = self.beat_pidbox
        if owner is not None and owner.is_stale():
            late("warning")(
                "beat pidbox: not answering %s, the scheduler has not ticked for %.1fs"
                " (over the %ss limit).", method, owner.tick_age(), owner.max_tick_age,
            )  # fmt: skip
            return None
        return super().dispatch(method, *args, **kwargs)


class BeatPidbox:
    """A node of the control exchange in a thread of its own, which answers `ping` and no more."""

    retry_interval = 5.0  # seconds before a lost connection is made again
    join_timeout = 3.0
    min_tick_age = 60.0  # seconds that a scheduler may at least take for a tick

    def __init__(self, service: Any) -> None:
        self.service, self.app = service, service.app
        self.hostname = beat_nodename(service.hostname)
        self.state = AttributeDict(app=self.app, service=service)
        self.node = _Node(
            safe_str(self.hostname),
            state=self.state,
            handlers={"ping": self._ping},
            mailbox=self.app.control.mailbox,
        )
        self.node.beat_pidbox = self
        self.thread: threading.Thread | None = None
        self.first_connection_attempt = True
        self._ear = Ear()
        self._shutdown = self._ear.stopping

    @property
    def max_tick_age(self) -> float:
        """Seconds without a tick after which it is silent; 0: never."""
        configured = self.app.conf.beat_remote_control_max_tick_age
        if configured is not None:
            return configured
        usual = late("DEFAULT_MAX_INTERVAL")
        interval = self.service.effective_max_interval or self.service.max_interval or usual
        return max(interval * 2, self.min_tick_age)

    def tick_age(self) -> float | None:
        """Return the seconds since the last tick; None before the first."""
        last = self.service._last_tick
        return None if last is None else time.monotonic() - last

    def is_stale(self) -> bool:
        """Say whether the scheduler hangs."""
        most, age = self.max_tick_age, self.tick_age()
        return bool(most) and age is not None and age > most

    def _ping(self, state: Any, **_kwargs: Any) -> dict[str, str]:
        return {"ok": "pong"}

    def on_message(self, body: Any, message: Any) -> None:
        """Answer what is ours; what is for workers is passed over in silence."""
        try:
            if isinstance(body, dict) and body.get("method") in (self.node.handlers or ()):
                self.node.handle_message(body, message)
        except Exception as error:
            late("error")("beat pidbox command error: %r", error, exc_info=True)

    def fanout_support(self) -> tuple[bool, str]:
        """Return (whether the transport can broadcast, its name). Opens no connection."""
        connection = self.app.connection_for_read()
        try:
            return connection.supports_exchange_type("fanout"), connection.transport_cls
        finally:
            ignore_errors(connection, connection.release)

    def start(self) -> None:
        """Start the thread, if the transport can broadcast."""
        if self.thread is not None and self.thread.is_alive():
            return
        supported, transport = self.fanout_support()
        if not supported:
            text = "beat pidbox: the %s transport cannot broadcast: no remote control."
            late("warning")(text, transport)
            return
        self.first_connection_attempt = True
        self._shutdown.clear()
        self.thread = threading.Thread(target=self._loop, name="BeatPidbox", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop the thread; one that waits for the broker is left behind."""
        self._ear.stop()
        if self.thread is None:
            return
        self.thread.join(timeout=self.join_timeout)
        if not self.thread.is_alive():
            self.thread = None
            return
        text = (
            "beat pidbox: consumer thread did not stop within %s seconds; it does not hold up exit."
        )
        late("warning")(text, self.join_timeout)

    def _error_handler(self, error: Any, interval: Any) -> None:
        text = "beat pidbox: Connection error: %s. Trying again in %s seconds..."
        late("error")(text, error, interval)

    def _abort_if_stopping(self) -> None:
        if self._shutdown.is_set():
            raise _Stopping

    def _connection_retry_setting(self) -> str:
        first = "broker_connection_retry_on_startup"
        if self.first_connection_attempt and self.app.conf[first] is not None:
            return first
        return "broker_connection_retry"

    def _connect(self) -> Any:
        setting, conf = self._connection_retry_setting(), self.app.conf
        self.first_connection_attempt = False
        connection = self.app.connection_for_read()
        try:
            most = conf.broker_connection_max_retries if conf[setting] else 0
            stop = self._abort_if_stopping
            connection.ensure_connection(self._error_handler, most, callback=stop)
        except BaseException:
            ignore_errors(connection, connection.release)
            raise
        return connection

    def _consume_from(self, connection: Any) -> None:
        late("info")("beat pidbox: Connected to %s.", connection.as_uri())
        self.node.channel = connection.channel()
        consumer = self.node.listen(callback=self.on_message)
        try:
            self._ear.listen(connection)
        finally:
            ignore_errors(connection, consumer.cancel)

    def _loop(self) -> None:
        try:
            while not self._shutdown.is_set() and self._serve():
                self._shutdown.wait(self.retry_interval)
        finally:
            if not self._shutdown.is_set():
                text = "beat pidbox: Consumer stopped, remote control is answered no longer."
                late("warning")(text)

    def _serve(self) -> bool:
        """Serve one connection; say whether to make another one."""
        try:
            established = self._connect()
        except _Stopping:
            return False
        except Exception as error:
            if not self._shutdown.is_set():
                late("error")(
                    "beat pidbox: could not connect to the broker, so beat will not answer remote"
                    " control commands; see broker_connection_retry,"
                    " broker_connection_retry_on_startup and broker_connection_max_retries: %r",
                    error, exc_info=True,
                )  # fmt: skip
            return False
        try:
            with established as connection:
                self._consume_from(connection)
        except Exception as error:
            if self._shutdown.is_set():
                return False
            late("error")("beat pidbox connection error: %r", error, exc_info=True)
            return bool(self.app.conf.broker_connection_retry)
        return True
