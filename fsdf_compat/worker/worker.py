"""`WorkController`: a worker, as a program or in a thread of another one."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from datetime import datetime, timezone
from typing import Any

from .. import bootsteps, signals
from .. import concurrency as _concurrency
from .._app.places import check_places
from .._engine.errors import WRONG
from .._engine.serving import serve
from ..bootsteps import RUN, TERMINATE
from ..exceptions import ImproperlyConfigured, WorkerTerminate
from ..platforms import EX_FAILURE, create_pidlock
from ..utils.imports import reload_from_cwd
from ..utils.log import get_logger, mlevel
from ..utils.nodenames import default_nodename, worker_direct
from ..utils.sysinfo import is_auto_concurrency
from ..utils.text import str_to_list
from . import state
from ._slots import Told, configured, sized

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

__all__ = ("WorkController",)
logger = get_logger("celery.worker")
SHUTDOWN_SOCKET_TIMEOUT = 5.0
_EITHER = {  # attributes by the settings that stand in for what is not given
    "concurrency": "worker_concurrency",
    "task_events": "worker_send_task_events",
    "consumer_cls": "worker_consumer",
    "timer_cls": "worker_timer",
    "timer_precision": "worker_timer_precision",
    "autoscaler_cls": "worker_autoscaler",
    "pool_putlocks": "worker_pool_putlocks",
    "pool_restarts": "worker_pool_restarts",
    "pool_start_method": "worker_pool_start_method",
    "schedule_filename": "beat_schedule_filename",
    "max_tasks_per_child": "worker_max_tasks_per_child",
    "max_memory_per_child": "worker_max_memory_per_child",
    "prefetch_multiplier": "worker_prefetch_multiplier",
    "disable_rate_limits": "worker_disable_rate_limits",
    "worker_lost_wait": "worker_lost_wait",
}


class WorkController:
    """A worker: steps that are started in order, and stopped in the other one.

    `start` blocks until `state.should_stop` or `should_terminate` are set, or `stop` is called.
    """

    app: Any = None
    pidlock: Any = None
    blueprint: Any = None
    pool: Any = None
    consumer: Any = None
    semaphore: Any = None
    exitcode: int | None = None
    autoscale: Any = None
    _unsaid: Told | None = None
    concurrency: Any = None
    pool_start_method: Any = None
    prefetch_multiplier: Any = None
    task_events: Any = None
    timer: Any = None

    class Blueprint(bootsteps.Blueprint):
        """The steps of a worker."""

        name = "Worker"
        default_steps = {
            f"{__package__}.components:{name}"
            for name in ("Beat", "Consumer", "Hub", "Pool", "StateDB", "Timer")
        } | {f"{__package__}.autoscale:WorkerComponent"}

    def __init__(self, app: Any = None, hostname: str | None = None, **kwargs: Any) -> None:
        self.app = app or self.app
        self.hostname = default_nodename(hostname)
        self.startup_time = datetime.now(timezone.utc)
        self._woken = threading.Event()
        self.app.loader.init_worker()
        self.on_before_init(**kwargs)
        self.setup_defaults(**kwargs)
        self.on_after_init(**kwargs)
        self.setup_instance(**self.prepare_args(**kwargs))

    def setup_defaults(
        self, loglevel: Any = "WARN", logfile: Any = None, pool: Any = None, pool_cls: Any = None,
        optimization: Any = None, O: Any = None, statedb: Any = None, state_db: Any = None,
        time_limit: Any = None, task_time_limit: Any = None, soft_time_limit: Any = None,
        task_soft_time_limit: Any = None, scheduler: Any = None, scheduler_cls: Any = None,
        **given: Any,
    ) -> None:  # fmt: skip
        """Take what is given, else what is configured."""
        either = self.app.either
        self.loglevel, self.logfile, self.optimization = loglevel, logfile, optimization or O
        for name, key in _EITHER.items():
            setattr(self, name, either(key, given.get(name)))
        self.pool_cls = either("worker_pool", pool, pool_cls)
        self.statedb = either("worker_state_db", statedb, state_db)
        self.scheduler = either("beat_scheduler", scheduler, scheduler_cls)
        self.time_limit = either("task_time_limit", time_limit, task_time_limit)
        soft = soft_time_limit, task_soft_time_limit
        self.soft_time_limit = either("task_soft_time_limit", *soft)
        self.prefetch_multiplier = int(self.prefetch_multiplier)
        if self.pool_start_method not in ("fork", "spawn"):
            raise ImproperlyConfigured(
                f"worker_pool_start_method must be 'fork' or 'spawn', got"
                f" {self.pool_start_method!r}."
            )

    def setup_instance(
        self, queues: Any = None, ready_callback: Any = None, pidfile: Any = None,
        include: Any = None, use_eventloop: Any = None, exclude_queues: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Make the steps."""
        self.pidfile, self.options = pidfile, kwargs
        self.setup_queues(queues, exclude_queues)
        self.setup_includes(str_to_list(include))
        self.loglevel = mlevel(self.loglevel)
        self.ready_callback = ready_callback or self.on_consumer_ready
        self.use_eventloop = False  # the engine has threads of its own
        self.concurrency, self._unsaid = configured(self.concurrency)
        signals.worker_init.send(sender=self)
        self.pool_cls = _concurrency.get_implementation(self.pool_cls)
        self._resolve_concurrency()
        conf = self.app.conf
        conf.task_time_limit, conf.task_soft_time_limit = self.time_limit, self.soft_time_limit
        self.steps: list[Any] = []
        check_places(self.app)  # before anything is shown or begun
        self.on_init_blueprint()
        self.serving = serve(self.app)
        self.serving.requests.node = self.hostname
        self.blueprint = self.Blueprint(
            steps=self.app.steps["worker"],
            on_start=self.on_start,
            on_close=self.on_close,
            on_stopped=self.on_stopped,
        )
        self.blueprint.apply(self, **kwargs)

    def _resolve_concurrency(self) -> None:
        if is_auto_concurrency(self.concurrency):
            kind = self.pool_cls
            name = kind.__module__.rpartition(".")[2]
            self.concurrency, self._unsaid = sized(name, getattr(kind, "mode", "") == "processes")

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Choose what to consume, of the queues that are known.

        Raises:
            ImproperlyConfigured: one is not, and none are to be made as they are named.
        """
        queues = self.app.amqp.queues
        for names, choose, what in (
            (include, queues.select, "consume from"), (exclude, queues.deselect, "leave out"),
        ):  # fmt: skip
            try:
                choose(str_to_list(names))
            except KeyError as exc:
                raise ImproperlyConfigured(
                    f"Trying to {what} a queue that is not in task_queues: {exc}; add it there, or"
                    " let task_create_missing_queues be true"
                ) from exc
        if self.app.conf.worker_direct:
            queues.select_add(worker_direct(self.hostname))

    def setup_includes(self, includes: Any) -> None:
        """Import modules that have tasks; all are named in `conf.include`, for children."""
        for module in includes or ():
            self.app.loader.import_task_module(module)
        self.include = includes
        modules = {type(task).__module__ for task in self.app.tasks.values()}
        self.app.conf.include = tuple({*self.app.conf.include, *(includes or ()), *modules})

    # ---------------------------------------------------------------- hooks of subclasses

    def on_init_blueprint(self) -> None:
        """Called before the steps are made."""

    def on_before_init(self, **kwargs: Any) -> None:
        """Called first."""

    def on_after_init(self, **kwargs: Any) -> None:
        """Called once the defaults are there."""

    def on_consumer_ready(self, consumer: Any) -> None:
        """Called when messages are fetched."""

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Return what the steps are told."""
        return kwargs

    def on_start(self) -> None:
        """Called before the steps are started."""
        if self._unsaid is not None:  # nobody could have read it before
            level, text, args = self._unsaid
            logger.log(level, text, *args)
        if self.pidfile:
            self.pidlock = create_pidlock(self.pidfile)

    def on_close(self) -> None:
        """Called when the steps are about to be stopped."""
        self.app.loader.shutdown_worker()

    def on_stopped(self) -> None:
        """Called when the steps are stopped."""
        self.timer.stop()
        self.consumer.shutdown()
        if self.pidlock:
            self.pidlock.release()

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Work until told to end; `exitcode` says how. Blocks."""
        state.wakers.append(self.wake)
        try:
            self.blueprint.start(self)
        except WorkerTerminate:
            self.terminate()
        except WRONG as exc:
            logger.critical("Unrecoverable error: %s", exc)
            self.stop(exitcode=EX_FAILURE)
        except Exception as exc:
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            self.stop(exitcode=EX_FAILURE)
        except SystemExit as exc:
            self.stop(exitcode=exc.code)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            self.stop(exitcode=EX_FAILURE)
        finally:
            state.wakers.remove(self.wake)

    def end(self, error: SystemExit) -> None:
        """End as an exception says: WorkerShutdown, or WorkerTerminate. Any thread."""
        if isinstance(error, WorkerTerminate):
            state.should_terminate = error.code
        else:
            state.should_stop = error.code

    def wake(self) -> None:
        """Have it look whether it is to end. Any thread."""
        self._woken.set()

    def wait(self) -> None:
        """Block until it is to end.

        Raises:
            WorkerShutdown, WorkerTerminate: how.
        """
        while self.blueprint.state == RUN:
            state.maybe_shutdown()
            self._woken.wait()
            self._woken.clear()

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """End when what runs has ended (a warm shutdown). Blocks."""
        if exitcode is not None:
            self.exitcode = exitcode
        if self.blueprint.state == RUN:
            self._shutdown(warm=True)
        self.wake()
        self._send_worker_shutdown()

    def terminate(self, in_sighandler: bool = False) -> None:
        """End now; what runs goes back to its queue, or is lost (a cold shutdown). Blocks."""
        if self.blueprint.state != TERMINATE:
            self._shutdown(warm=False)
        self.wake()

    def _shutdown(self, warm: bool = True) -> None:
        if self.blueprint is not None:
            self.blueprint.stop(self, terminate=not warm)
            self.blueprint.join()

    def _send_worker_shutdown(self) -> None:
        signals.worker_shutdown.send(sender=self)

    def wait_for_soft_shutdown(self) -> None:
        """Let what runs end for `worker_soft_shutdown_timeout` seconds. Blocks."""
        if (seconds := self.app.conf.worker_soft_shutdown_timeout) > 0:
            text = "Initiating Soft Shutdown, terminating in %s seconds"
            logger.warning(text, seconds)
            self.app.engine.stop(drain=True, timeout=seconds)

    def process_task(self, request: Any) -> None:
        """Run a request: of Celery's own kind of consumer, which this worker has not."""
        request.execute_using_pool(self.pool)

    def should_use_eventloop(self) -> bool:
        """Say whether it has a loop of kombu's."""
        return False

    def register_with_event_loop(self, hub: Any) -> None:
        """Tell the steps of a loop."""
        args = (hub,)
        what = "hub.register"
        self.blueprint.send_all(self, "register_with_event_loop", args=args, description=what)

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Import task modules, those that are there already anew if `reload`."""
        for name in set(modules or self.app.loader.task_modules):
            if name not in sys.modules:
                importlib.import_module(name)
            elif reload:
                reload_from_cwd(sys.modules[name], reloader or importlib.reload)
        self.consumer.update_strategies()

    # ---------------------------------------------------------------- what it is

    def info(self) -> dict[str, Any]:
        """Return what `inspect stats` shows of the process."""
        uptime = datetime.now(timezone.utc) - self.startup_time
        return {
            "total": state.total_count,
            "pid": os.getpid(),
            "clock": str(self.app.clock),
            "uptime": round(uptime.total_seconds()),
        }

    def rusage(self) -> dict[str, Any]:
        """Return what the process has used.

        Raises:
            NotImplementedError: the system does not tell.
        """
        if resource is None:
            raise NotImplementedError("rusage not supported by this platform")
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {name[3:]: getattr(used, name) for name in dir(used) if name.startswith("ru_")}

    def stats(self) -> dict[str, Any]:
        """Return what `inspect stats` shows."""
        info = self.info()
        info.update(self.blueprint.info(self))
        info.update(self.consumer.blueprint.info(self.consumer))
        try:
            info["rusage"] = self.rusage()
        except NotImplementedError:
            info["rusage"] = "N/A"
        return info

    @property
    def state(self) -> Any:
        """What this process knows of its work."""
        return state

    def __repr__(self) -> str:
        stage = self.blueprint.human_state() if self.blueprint else "INIT"
        return f"<Worker: {self.hostname} ({stage})>"

    def __str__(self) -> str:
        return self.hostname
