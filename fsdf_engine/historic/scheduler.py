"""Publishing at set times, by APScheduler: `fsdf_background_scheduler`, `timing_publish_deco`.

What is scheduled is the publication; whoever consumes the queue runs it. The scheduler is made when
this module is imported, which is when it is first asked for; nothing is started by that.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import tzinfo
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..core.exit import hold_exit
from ..core.family import importing_main
from ..core.signals import on_signals
from ..engine import default_engine
from ..errors import ConfigurationError, MissingExtra
from ..result import AsyncResult
from ..task import Task
from .clients import QueueConsumer, QueuePublisher

try:
    from apscheduler.jobstores.base import JobLookupError
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.schedulers.base import SchedulerNotRunningError
except ImportError as error:
    raise MissingExtra('the scheduler needs APScheduler 3: pip install "fsdf[schedule]"') from error

if TYPE_CHECKING:
    from apscheduler.job import Job

__all__ = ["FsdfBackgroundScheduler", "fsdf_background_scheduler", "timing_publish_deco"]
LATE = 60  # seconds; a busy machine may publish so much too late, but publishes


class FsdfBackgroundScheduler(BackgroundScheduler):  # type: ignore[misc]
    """APScheduler's background scheduler, which keeps a script alive and ends at a signal.

    All methods may be called by any thread.
    """

    _release_exit: Callable[[], None] | None = None
    _zone: tzinfo
    _zone_is_given = False

    @property
    def timezone(self) -> tzinfo:
        """The time zone given to `configure`, else the configured one, else the machine's."""
        if not self._zone_is_given and (name := default_engine().config.text("TIMEZONE")):
            return ZoneInfo(name)
        return self._zone

    @timezone.setter
    def timezone(self, zone: tzinfo) -> None:
        self._zone = zone

    def _configure(self, config: dict[str, Any]) -> None:
        self._zone_is_given = bool(config.get("timezone"))
        defaults = {"misfire_grace_time": LATE, **config.get("job_defaults", {})}
        super()._configure({**config, "job_defaults": defaults})

    def add_timing_publish_job(self, func: Any, *args: Any, **kwargs: Any) -> Job:
        """Schedule the publication of a task; the arguments are those of `add_job`."""
        return self.add_job(timing_publish_deco(func), *args, **kwargs)

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Begin to publish. Does not block; the interpreter stays until `shutdown` or a signal.

        Raises:
            ConfigurationError: this process is a child that is importing the main module.
        """
        if importing_main():
            raise ConfigurationError(
                "this child process is importing the main module; start the scheduler under"
                " `if __name__ == '__main__':`, or each child publishes as well"
            )
        if not self.running:
            self._release_exit = hold_exit()  # first: a job may shut down at once
        try:
            super().start(*args, **kwargs)
        except BaseException:
            if not self.running:
                self._let_exit()
            raise
        on_signals(self._stop)

    def shutdown(self, wait: bool = True) -> None:
        """Publish no more; with `wait` block until what is being published is stored."""
        try:
            super().shutdown(wait)
        finally:
            self._let_exit()

    def _let_exit(self) -> None:
        if release := self._release_exit:
            self._release_exit = None
            release()

    def _process_jobs(self) -> float | None:
        try:
            return super()._process_jobs()  # type: ignore[no-any-return]
        except JobLookupError:
            if self.running:
                raise
            return None  # `shutdown` by another thread has taken its jobs away meanwhile

    def _stop(self, drain: bool) -> None:
        with suppress(SchedulerNotRunningError):
            self.shutdown(wait=drain)


def timing_publish_deco(
    func: Task[..., Any] | QueueConsumer | QueuePublisher,
) -> Callable[..., AsyncResult]:
    """Return a function that publishes to the task what it is called with, for `add_job`.

    `add_job` refuses arguments that do not fit the task's function. A persistent job store can keep
    the job where the task stands at the top level of a module.

    Raises:
        ConfigurationError: `func` is no task, consumer or publisher.
    """
    task = func.task if isinstance(func, QueueConsumer) else func
    if not isinstance(task, (Task, QueuePublisher)):
        raise ConfigurationError(f"{func!r} is no task; decorate it with task_deco")

    def publish(*args: Any, **kwargs: Any) -> AsyncResult:
        return task.push(*args, **kwargs)

    if isinstance(task, Task):
        module, name = task.fn.__module__, getattr(task.fn, "__qualname__", "")
        publish.__module__ = module
        # Where a persistent job store finds `push` again; what it would not find has no such name.
        publish.__qualname__ = f"{name if _stands(task, module, name) else f'<locals>.{name}'}.push"
        if task.options.is_consuming_function_use_multi_params:
            with suppress(ValueError):  # a builtin whose signature nobody knows
                publish.__signature__ = inspect.signature(task.fn)  # type: ignore[attr-defined]
    return publish


def _stands(task: Task[..., Any], module: str, name: str) -> bool:
    """Say whether a module has the task by this name."""
    try:
        return attrgetter(name)(sys.modules.get(module)) is task
    except AttributeError:
        return False


fsdf_background_scheduler = FsdfBackgroundScheduler()
