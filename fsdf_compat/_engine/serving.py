"""An app that works: its tasks on the queues of its engine, in the worker and in its children."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeAlias

from fsdf_engine import Options
from fsdf_engine import Task as EngineTask
from fsdf_engine.contracts import Job, Plan

from .._backends.native import composer
from .._state import _let_runs_wait
from ..exceptions import ImproperlyConfigured, SoftTimeLimitExceeded
from .codec import CelerysFlat
from .ends import Ends
from .gate import CelerysGate
from .requests import Requests
from .runner import runner_of

__all__ = ["APP", "INCLUDE", "Serving", "awaits", "resolve_plan", "serve"]
APP = "FSDF_CELERY_APP"  # the environment variable that tells children which app it is
INCLUDE = "FSDF_CELERY_INCLUDE"  # and what modules -I has named
RESOLVE = f"{__name__}:resolve_plan"
Receiver: TypeAlias = Callable[[Sequence[Job]], None]
_CHILDREN = f"{__package__}.children"
_RESOLVER = f"{__package__}.resolving:resolve"


def awaits(task: Any) -> bool:
    """Say whether a task is `async def`."""
    return inspect.iscoroutinefunction(inspect.unwrap(task.run))


def _plain() -> None:
    """Stand for the function of a task, which its runner calls."""


async def _coroutine() -> None:
    """Stand for the function of an `async def` task."""


class Serving:
    """What an app's engine is told once it works."""

    def __init__(self, app: Any) -> None:
        self.app, self.requests = app, Requests(app)
        self.codec = CelerysFlat(app.conf.accept_content)
        self.ends = Ends(app, self.requests)
        self._sinks = (self.ends,)
        self.runs_coroutines = True
        self._receiver: Receiver | None = None
        self._declared: set[tuple[str, str]] = set()
        engine = app.engine
        engine.codecs, engine.amend, engine.reports = (self.codec,), self.amend, False
        engine.compose = composer(app)
        engine.listeners.add("soft_limit_passed", self.ends.pass_soft_limit)
        self.gate = CelerysGate(app)
        engine.gates = (self.gate,)
        if app.conf.get("import_unknown_tasks", True):
            engine.resolver = _RESOLVER

    def hear(self, receiver: Receiver) -> None:
        """Have messages told when they have come, to the last one that asked for it."""
        if self._receiver is None:
            self.app.engine.listeners.add("messages_received", self._tell)
        self._receiver = receiver

    def _tell(self, jobs: Sequence[Job]) -> None:
        if self._receiver is not None:
            self._receiver(jobs)

    def amend(self, plan: Plan) -> Plan:
        """Give a task's plan its runner, and what tells of its ends.

        One that only children know has none here: they run it.
        """
        plan = plan._replace(sinks=self._sinks, soft_error=SoftTimeLimitExceeded)
        if (task := self.app._tasks.get(plan.name)) is None:
            return plan
        return plan._replace(
            runner=runner_of(self.app, plan.name, self.requests, self.awaits(task))
        )

    def wire_queue(self, queue: str) -> str:
        """Return the engine's name of a queue."""
        return f"{queue}{self.app.conf.fsdf_queue_suffix}"

    def declare(self, queue: str) -> EngineTask[..., Any]:
        """Declare every task of the app on a queue; return one of them, to be consumed."""
        tasks = [self.declare_task(queue, task) for task in self.app.tasks.values()]
        named = [name for name in self.app.tasks if not name.startswith("celery.")]
        self.codec.only = named[0] if len(named) == 1 else ""
        return tasks[0]

    def declare_task(self, queue: str, task: Any, name: str = "") -> EngineTask[..., Any]:
        """Declare one task on a queue, perhaps by another name; a repeat gives the same."""
        wire_queue, engine, name = self.wire_queue(queue), self.app.engine, name or task.name
        if (wire_queue, name) not in self._declared:
            fn = _coroutine if self.awaits(task) else _plain
            engine.task(fn, wire_queue, **self.options(task, name))
            self._declared.add((wire_queue, name))
        return engine.find(wire_queue, name)

    def awaits(self, task: Any) -> bool:
        """Say whether the pool awaits a task; else an `async def` one has a loop of its own."""
        return self.runs_coroutines and awaits(task)

    def options(self, task: Any, name: str) -> Options:
        """Return the engine's options of a task."""
        backend = task.backend
        options: Options = self.app.engine_options()
        options["name"] = name
        options["ack"] = "late" if task.acks_late else "early"
        options["keep_failed"] = bool(task.acks_late and not task.acks_on_failure_or_timeout)
        options["cancellable"] = True
        conf = self.app.conf  # a worker's command line may have changed it since the task was bound
        soft = float(task.soft_time_limit or conf.task_soft_time_limit or 0)
        options["function_timeout"] = hard = float(task.time_limit or conf.task_time_limit or 0)
        options["soft_time_limit"] = 0.0 if 0 < hard <= soft else soft  # the hard one comes first
        options["max_retry_times"] = 0
        if getattr(backend, "native", False):
            options.update(backend.engine_options())
            options["is_using_rpc_mode"] = options["joins_groups"] = True
            backend.replies()  # makes its layout known to the store
        return options

    def plan(self, wire_queue: str, name: str) -> Plan:
        """Return how a task runs, for a child process."""
        queue = self.requests.queue_of(wire_queue)
        return self.declare_task(queue, self.app.tasks[name]).plan()

    def pool(self, mode: str, size: int, **options: Any) -> Any:
        """Make the pool of all queues. Coroutines have slots of their own, where there are some."""
        make = self.app.engine.new_pool
        if mode == "processes":
            modules = [name for name in (_CHILDREN, _module(os.environ.get(APP, ""))) if name]
            return make(mode, size, preload=tuple(modules), resolve=RESOLVE, **options)
        if mode in ("gevent", "eventlet"):
            _let_runs_wait()
        slots = int(self.app.conf.get("worker_coroutines") or 100)
        coroutines = slots if any(map(awaits, self.app._tasks.values())) else 0
        self.runs_coroutines = bool(coroutines) and mode not in ("gevent", "eventlet")
        return make(mode, size, coroutines=coroutines if self.runs_coroutines else 0)


def _module(place: str) -> str:
    """Return the module of an app that was found at `place`: "proj.app" may be an attribute."""
    module = place.partition(":")[0]
    return module if module in sys.modules else module.rpartition(".")[0]


_served: list[Serving] = []  # of this process, and of what it forks; the last one works


def serve(app: Any) -> Serving:
    """Let an app work in this process: it is the current one, with all tasks that it has."""
    trace = import_module("..app.trace", __package__)
    trace.setup_worker_optimizations(app)
    serving = next((each for each in _served if each.app is app), None) or Serving(app)
    _served[:] = [*(each for each in _served if each is not serving), serving]
    return serving


def resolve_plan(wire_queue: str, name: str) -> Plan:
    """Return a task's plan in a child process of the worker."""
    return _here().plan(wire_queue, name)


def _here() -> Serving:
    """Return what this process serves: what the worker did that it was forked of, else by name."""
    if not _served:
        if not (place := os.environ.get(APP)):
            raise ImproperlyConfigured("child processes must find the app: give -A module")
        utils = import_module("..app.utils", __package__)
        app = utils.find_app(place)
        for name in filter(None, os.environ.get(INCLUDE, "").split(",")):
            import_module(name)
        app.loader.import_default_modules()
        serve(app)
    return _served[-1]
