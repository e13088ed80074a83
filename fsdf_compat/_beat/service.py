"""What runs a scheduler: in the foreground, in a thread, or in a process beside a worker."""

from __future__ import annotations

import sys
import time
from threading import Event, Thread
from typing import Any

from billiard.common import reset_signals
from billiard.context import Process
from kombu.utils.objects import cached_property

from .. import platforms, signals
from ..utils.imports import load_extension_class_names, symbol_by_name
from ..utils.log import iter_open_logger_fds
from ..utils.time import humanize_seconds
from .persistent import PersistentScheduler
from .scheduler import late

__all__ = ["EmbeddedService", "Service"]


class Service:
    """Ticks until it is stopped."""

    scheduler_cls: Any = PersistentScheduler

    def __init__(
        self,
        app: Any,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: Any = None,
        remote_control: bool | None = None,
        hostname: str | None = None,
    ) -> None:
        self.app, self.hostname = app, hostname
        self.max_interval = max_interval or app.conf.beat_max_loop_interval
        self.scheduler_cls = scheduler_cls or self.scheduler_cls
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        usual = app.conf.beat_enable_remote_control
        self.remote_control = usual if remote_control is None else remote_control
        self.effective_max_interval: float | None = None  # the scheduler's own, once it is made
        self._pidbox: Any = None
        self._last_tick: float | None = None
        self._is_shutdown, self._is_stopped = Event(), Event()

    def __reduce__(self) -> Any:
        return self.__class__, (
            self.app, self.max_interval, self.schedule_filename, self.scheduler_cls,
            self.remote_control, self.hostname,
        )  # fmt: skip

    def start(self, embedded_process: bool = False) -> None:
        """Tick until `stop`, or until the process is told to end. Blocks."""
        late("info")("beat: Starting...")
        most = self.scheduler.max_interval
        late("debug")("beat: Ticking with max interval->%s", humanize_seconds(most))
        signals.beat_init.send(sender=self)
        if embedded_process:
            signals.beat_embedded_init.send(sender=self)
            platforms.set_process_title("celery beat")
        self.effective_max_interval = most
        if self.remote_control:
            self._pidbox = late("BeatPidbox")(self)
            self._pidbox.start()
        self._last_tick = time.monotonic()  # one that hangs in its first tick is seen, too
        try:
            while not self._is_shutdown.is_set():
                self._tick()
        except (KeyboardInterrupt, SystemExit):
            self._is_shutdown.set()
        finally:
            self.sync()  # first: who stops us may not wait for long
            if self._pidbox is not None:
                self._pidbox.stop()

    def _tick(self) -> None:
        interval = self.scheduler.tick()
        self._last_tick = time.monotonic()
        if interval and interval > 0.0:
            late("debug")("beat: Waking up %s.", humanize_seconds(interval, prefix="in "))
            self._is_shutdown.wait(interval)
            if self.scheduler.should_sync():
                self.scheduler._do_sync()

    def sync(self) -> None:
        """Close the scheduler."""
        self.scheduler.close()
        self._is_stopped.set()

    def stop(self, wait: bool = False) -> None:
        """Let it end after this tick; with `wait` block until it has."""
        late("info")("beat: Shutting down...")
        self._is_shutdown.set()
        if wait:
            self._is_stopped.wait()

    def get_scheduler(
        self, lazy: bool = False, extension_namespace: str = "celery.beat_schedulers"
    ) -> Any:
        """Return a scheduler of the class that was asked for: a class, or its name."""
        aliases = dict(load_extension_class_names(extension_namespace))
        made = symbol_by_name(self.scheduler_cls, aliases=aliases)
        return made(
            app=self.app,
            schedule_filename=self.schedule_filename,
            max_interval=self.max_interval,
            lazy=lazy,
        )

    @cached_property
    def scheduler(self) -> Any:
        """The scheduler that ticks."""
        return self.get_scheduler()


class _Threaded(Thread):
    """A service in a thread of this process."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(name="Beat", daemon=True)
        self.app, self.service = app, late("Service")(app, **kwargs)

    def run(self) -> None:
        self.app.set_current()
        self.service.start()

    def stop(self) -> None:
        self.service.stop(wait=True)


class _Process(Process):
    """A service in a process of its own."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__()
        self.app, self.service, self.name = app, late("Service")(app, **kwargs), "Beat"

    def run(self) -> None:
        reset_signals(full=False)
        std = [sys.__stdin__, sys.__stdout__, sys.__stderr__]
        platforms.close_open_fds([*std, *iter_open_logger_fds()])
        self.app.set_default()
        self.app.set_current()
        self.service.start(embedded_process=True)

    def stop(self) -> None:
        self.service.stop()
        self.terminate()


def EmbeddedService(app: Any, max_interval: float | None = None, **kwargs: Any) -> Any:
    """Return a service to be started beside a worker: a process, or with `thread` a thread."""
    kwargs.setdefault("remote_control", False)  # the worker answers
    if kwargs.pop("thread", False):
        return _Threaded(app, max_interval=1, **kwargs)
    return _Process(app, max_interval=max_interval, **kwargs)
