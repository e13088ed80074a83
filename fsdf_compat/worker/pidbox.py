"""A worker's ear for control commands: a thread with a kombu connection of its own."""

from __future__ import annotations

import threading
from typing import Any

from amqp.exceptions import ResourceLocked
from kombu.common import ignore_errors
from kombu.utils.encoding import safe_str

from .._app.ear import Ear
from ..exceptions import WorkerShutdown, WorkerTerminate
from ..utils.collections import AttributeDict
from ..utils.functional import pass1
from ..utils.log import get_logger
from . import control

__all__ = ["Pidbox"]
logger = get_logger("celery.worker.pidbox")
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before a lost connection is made again


class Pidbox:
    """Answers what is sent to the exchange `celery.pidbox`; `c` is the worker's consumer.

    Where the transport cannot broadcast (SQL, SQLite) there is none, and the log says so once.
    """

    consumer: Any = None

    def __init__(self, c: Any) -> None:
        self.c, self.hostname = c, c.hostname
        self.node = c.app.control.mailbox.Node(
            safe_str(c.hostname),
            handlers=control.Panel.data,
            state=AttributeDict(app=c.app, hostname=c.hostname, consumer=c, tset=pass1),
        )
        self._ear, self._ready = Ear(), threading.Event()
        self._stopping = self._ear.stopping
        self._thread: threading.Thread | None = None
        self._failures = 0  # in a row; the thread's

    def start(self, timeout: float = 2.0) -> None:
        """Start the thread; returns when it listens, or after `timeout` seconds."""
        self._thread = threading.Thread(target=self._loop, name="celery-pidbox", daemon=True)
        self._thread.start()
        self._ready.wait(timeout)

    def stop(self) -> None:
        """Stop listening; one that is connecting is left behind."""
        self._ear.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(3.0)

    def on_message(self, body: Any, message: Any) -> None:
        """Do what a message says; what goes wrong is logged."""
        self.c.app.clock.forward()
        try:
            self.node.handle_message(body, message)
        except KeyError as error:
            logger.error("No such control command: %s", error)
        except (WorkerShutdown, WorkerTerminate) as error:
            self.c.controller.end(error)
        except Exception as error:
            logger.error("Control command error: %r", error, exc_info=True)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                return self._listen()
            except Exception as error:
                if self._stopping.is_set():
                    return None
                if not self._failures:  # once per outage
                    self._tell(error)
            finally:
                self._ready.set()
            self._stopping.wait(_PAUSES[min(self._failures, len(_PAUSES) - 1)])
            self._failures += 1
        return None

    def _tell(self, error: Exception) -> None:
        """Log why it does not listen."""
        if isinstance(error, ResourceLocked):  # the queue is the name's, and its owner's alone
            logger.warning(
                "pidbox: another worker has the name %s, give each one of its own by -n;"
                " it is tried again: %s",
                self.hostname, error,
            )  # fmt: skip
        else:
            logger.warning("pidbox: connection lost, it is tried again: %s", error)

    def _heard(self) -> None:
        """Know that it listens."""
        if self._failures:
            logger.info("pidbox: connected again")
        self._failures = 0
        self._ready.set()

    def _listen(self) -> None:
        """Answer until it is stopped, or there is nobody to answer. Raises of a lost connection."""
        if not self.c.app.conf.broker_url:  # kombu would look for a RabbitMQ
            logger.info("pidbox: broker_url is not set: no remote control")
            return
        with self.c.app.connection_for_read() as connection:
            if not connection.supports_exchange_type("fanout"):
                logger.info(
                    "pidbox: %s cannot broadcast: no remote control", connection.transport_cls
                )
                return
            self.node.channel = connection.channel()
            self.consumer = self.node.listen(callback=self.on_message)
            self.consumer.on_decode_error = self._on_decode_error
            logger.debug("pidbox: Connected to %s.", connection.as_uri())
            try:
                self._ear.listen(connection, self._heard)
            finally:
                ignore_errors(connection, self.consumer.cancel)
                self.consumer = None

    def _on_decode_error(self, message: Any, error: Exception) -> None:
        logger.error("pidbox: a message that cannot be read: %r", error)
        message.ack()
