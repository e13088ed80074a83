"""Runs in child processes."""

from __future__ import annotations

import multiprocessing
import os
import signal as _signal
import sys
import threading
from typing import Any

from .. import _state, platforms, signals
from ..utils.log import LoggingProxy
from .base import BasePool

__all__ = ("TaskPool", "process_destructor", "process_initializer")


def process_initializer(app: Any, hostname: str) -> None:
    """Make a child one that works for the app: before its first run, in its main thread."""
    _state._set_task_join_will_block(True)
    _be_named()
    platforms.set_mp_process_title("celeryd", hostname=hostname)
    app.loader.init_worker()
    app.loader.init_worker_process()
    app.set_current()
    app.set_default()
    app.finalize()
    _log_what_is_printed(app)
    signals.worker_process_init.send(sender=hostname)


def _be_named() -> None:
    """Be called in logs as Celery's children are: ForkPoolWorker-1."""
    process = multiprocessing.current_process()
    kind = "Spawn" if multiprocessing.get_start_method(allow_none=True) == "spawn" else "Fork"
    if identity := process._identity:
        process.name = f"{kind}PoolWorker-{identity[-1]}"


def _log_what_is_printed(app: Any) -> None:
    """Do as the worker, where nothing is inherited of it: in a child that is spawned."""
    if os.environ.get("CELERY_LOG_REDIRECT") and not isinstance(sys.stdout, LoggingProxy):
        app.log.redirect_stdouts(os.environ.get("CELERY_LOG_REDIRECT_LEVEL"))


def process_destructor(pid: int, exitcode: int) -> None:
    """Tell that a child ends: after its last run, in its main thread."""
    node = process_destructor.hostname  # type: ignore[attr-defined]
    signals.worker_process_shutdown.send(sender=node, pid=pid, exitcode=exitcode)


process_destructor.hostname = None  # type: ignore[attr-defined]


class TaskPool(BasePool):
    """Children of this process: forked, or spawned where `worker_pool_start_method` says so.

    A worker command has them forked by a process of its own that has no threads.
    """

    mode = "processes"

    def engine_options(self) -> dict[str, Any]:
        """Return when children are replaced, and how they are started."""
        given = self.options
        embedded = threading.current_thread() is not threading.main_thread()
        spawn = given.get("start_method") == "spawn"
        return {
            "start_method": "spawn" if spawn else "fork" if embedded else "",
            "max_tasks_per_child": given.get("maxtasksperchild") or 0,
            "max_memory_per_child": (given.get("max_memory_per_child") or 0) * 1024,
            "least": given.get("least", 0),
            "keep_alive": given.get("keep_alive", 0.0),
        }

    def thinning(self) -> str:
        """Say for the log what of it ends when it is idle."""
        least, seconds = self.options["least"], self.options["keep_alive"]
        return f"children that were idle for {seconds:g} s end, while more than {least} are left"

    @property
    def num_started(self) -> int | None:
        """How many children there are now."""
        return len(self.engine_pool.processes()) if self.engine_pool else 0

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Signal a child."""
        os.kill(pid, signal or _signal.SIGTERM)

    def _get_info(self) -> dict[str, Any]:
        given = self.options
        return {
            **super()._get_info(),
            "processes": [*self.engine_pool.processes()],
            "max-tasks-per-child": given.get("maxtasksperchild") or "N/A",
            "timeouts": [given.get("soft_timeout") or 0, given.get("timeout") or 0],
            "put-guarded-by-semaphore": False,
        }
