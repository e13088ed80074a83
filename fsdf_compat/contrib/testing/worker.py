"""A worker in a thread of the tests' own process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ... import worker
from ..._state import _set_task_join_will_block
from ...result import allow_join_result
from ...utils.dispatch import Signal
from ...utils.nodenames import anon_nodename
from ...worker import state

__all__ = ("TestWorkController", "setup_app_for_worker", "start_worker")
WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")
test_worker_starting = Signal(name="test_worker_starting", providing_args={})
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})


class TestWorkController(worker.WorkController):
    """A worker that others can wait for."""

    __test__ = False  # it is no class of tests
    logger_queue: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._on_started = threading.Event()
        super().__init__(*args, **kwargs)

    def on_consumer_ready(self, consumer: Any) -> None:
        """Let those go on that wait."""
        self._on_started.set()
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)

    def start(self) -> None:
        """Work until told to end. Blocks."""
        self.consumer.note_successes()
        try:
            super().start()
        finally:
            self._on_started.set()

    def ensure_started(self) -> None:
        """Block until it works.

        Raises:
            RuntimeError: it has ended before.
        """
        self._on_started.wait()
        if self.exitcode:
            raise RuntimeError(f"the worker ended with {self.exitcode}; its log says why")


@contextmanager
def start_worker(
    app: Any, concurrency: int = 1, pool: str = "solo", loglevel: Any = WORKER_LOGLEVEL,
    logfile: str | None = None, perform_ping_check: bool = True, ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0, **kwargs: Any,
) -> Iterator[Any]:  # fmt: skip
    """Have a worker meanwhile; the task "celery.ping" has to be there, unless it is not asked."""
    test_worker_starting.send(sender=app)
    controller = None
    given = {"concurrency": concurrency, "pool": pool, "loglevel": loglevel, "logfile": logfile,
             "perform_ping_check": perform_ping_check, **kwargs}  # fmt: skip
    try:
        with _start_worker_thread(app, shutdown_timeout=shutdown_timeout, **given) as controller:
            if perform_ping_check:
                ping = app.tasks["celery.ping"]
                with allow_join_result():
                    assert ping.delay().get(timeout=ping_task_timeout) == "pong"
            yield controller
    finally:
        test_worker_stopped.send(sender=app, worker=controller)


@contextmanager
def _start_worker_thread(
    app: Any, concurrency: int = 1, pool: str = "solo", loglevel: Any = WORKER_LOGLEVEL,
    logfile: str | None = None, WorkController: Any = TestWorkController,
    perform_ping_check: bool = True, shutdown_timeout: float = 10.0, **kwargs: Any,
) -> Iterator[Any]:  # fmt: skip
    setup_app_for_worker(app, loglevel, logfile)
    if perform_ping_check:
        assert "celery.ping" in app.tasks
    controller = WorkController(
        app=app, concurrency=concurrency, hostname=kwargs.pop("hostname", anon_nodename()),
        pool=pool, loglevel=loglevel, logfile=logfile, ready_callback=None,
        without_heartbeat=kwargs.pop("without_heartbeat", True), without_mingle=True,
        without_gossip=True, **kwargs,
    )  # fmt: skip
    thread = threading.Thread(target=controller.start, name="celery-worker", daemon=True)
    thread.start()
    controller.ensure_started()
    _set_task_join_will_block(False)
    try:
        yield controller
    finally:
        state.should_terminate = 0
        thread.join(shutdown_timeout)
        if thread.is_alive():
            raise RuntimeError(
                f"the worker does not end within {shutdown_timeout} s; raise `shutdown_timeout` if"
                " its tasks take longer"
            )
        state.should_terminate = None


def setup_app_for_worker(app: Any, loglevel: Any, logfile: Any) -> None:
    """Make an app the one that works here."""
    app.finalize()
    app.set_current()
    app.set_default()
    type(app.log)._setup = False
    app.log.setup(loglevel=loglevel, logfile=logfile)
