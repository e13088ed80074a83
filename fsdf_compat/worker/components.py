"""The steps of a worker. Those of users name them in `requires`."""

from __future__ import annotations

from typing import Any

from .. import bootsteps
from ..exceptions import ImproperlyConfigured
from ..utils.log import get_logger

__all__ = ("Beat", "Consumer", "Hub", "Pool", "StateDB", "Timer")
logger = get_logger("celery.worker")


class Timer(bootsteps.Step):
    """Makes `worker.timer`, for what steps want to do at its time."""

    def create(self, w: Any) -> None:
        """Make the timer; its thread starts with the first entry."""
        cls = w.timer_cls or w.pool_cls.Timer
        precision = w.timer_precision
        w.timer = self.instantiate(cls, max_interval=precision, on_error=self.on_timer_error)

    def on_timer_error(self, exc: BaseException) -> None:
        """Log what an entry raises."""
        logger.error("Timer error: %r", exc, exc_info=True)


class Hub(bootsteps.StartStopStep):
    """There is none: the engine's consumers have threads of their own. `worker.hub` is None."""

    requires = (Timer,)

    def __init__(self, w: Any, **kwargs: Any) -> None:
        w.hub = None
        super().__init__(w, **kwargs)

    def include_if(self, w: Any) -> bool:
        """Leave it out."""
        return False


class Pool(bootsteps.StartStopStep):
    """Makes `worker.pool`."""

    requires = (Hub,)

    def __init__(self, w: Any, autoscale: Any = None, **kwargs: Any) -> None:
        w.pool = None
        w.max_concurrency = w.concurrency
        w.min_concurrency = w.concurrency
        if isinstance(autoscale, str):
            most, _, least = autoscale.partition(",")
            autoscale = [int(most), int(least or 0)]
        w.autoscale = autoscale
        if autoscale:
            w.max_concurrency, w.min_concurrency = autoscale
        super().__init__(w, **kwargs)

    def create(self, w: Any) -> Any:
        """Make the pool; it has as many slots as autoscaling would have at most."""
        w.pool = self.instantiate(
            w.pool_cls,
            w.max_concurrency,
            app=w.app,
            initargs=(w.app, w.hostname),
            maxtasksperchild=w.max_tasks_per_child,
            max_memory_per_child=w.max_memory_per_child,
            timeout=w.time_limit,
            soft_timeout=w.soft_time_limit,
            start_method=w.pool_start_method,
        )
        return w.pool

    def info(self, w: Any) -> dict[str, Any]:
        """Return what `inspect stats` shows of it."""
        return {"pool": w.pool.info if w.pool else "N/A"}


class Beat(bootsteps.StartStopStep):
    """Runs beat in the worker (`-B`)."""

    label = "Beat"
    conditional = True

    def __init__(self, w: Any, beat: bool = False, **kwargs: Any) -> None:
        self.enabled = w.beat = beat
        w.beat = None
        super().__init__(w, beat=beat, **kwargs)

    def create(self, w: Any) -> Any:
        """Make the service."""
        if getattr(w.pool_cls, "is_green", False):
            raise ImproperlyConfigured("-B does not work with greenlets: start beat by itself")
        from ..beat import EmbeddedService

        w.beat = EmbeddedService(
            w.app, schedule_filename=w.schedule_filename, scheduler_cls=w.scheduler
        )
        return w.beat


class StateDB(bootsteps.Step):
    """Keeps revoked ids between restarts (`--statedb`)."""

    def __init__(self, w: Any, **kwargs: Any) -> None:
        self.enabled = w.statedb
        w._persistence = None
        super().__init__(w, **kwargs)

    def create(self, w: Any) -> None:
        """Take over what the file has."""
        w._persistence = w.state.Persistent(w.state, w.statedb, w.app.clock)

    def terminate(self, w: Any) -> None:
        """Write the file."""
        if w._persistence is not None:
            w._persistence.save()

    stop = terminate


class Consumer(bootsteps.StartStopStep):
    """Makes `worker.consumer`, which works until the worker is told to end."""

    last = True

    def create(self, w: Any) -> Any:
        """Make the consumer."""
        w.consumer = self.instantiate(
            w.consumer_cls or f"{__package__}.consumer:Consumer",
            w.process_task,
            hostname=w.hostname,
            task_events=w.task_events,
            init_callback=w.ready_callback,
            initial_prefetch_count=w.prefetch_multiplier * (w.max_concurrency or 1),
            pool=w.pool,
            timer=w.timer,
            app=w.app,
            controller=w,
            hub=None,
            worker_options=w.options,
            disable_rate_limits=w.disable_rate_limits,
            prefetch_multiplier=w.prefetch_multiplier,
        )
        return w.consumer
