"""The app: `Celery`."""

from __future__ import annotations

import datetime
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fsdf_engine import Engine, Options, UnknownTask
from fsdf_engine import Task as EngineTask
from fsdf_engine.contracts import Plan

from ..exceptions import ImproperlyConfigured, NotRegistered, NotYetSupported
from ..result import AsyncResult
from .control import Control
from .options import arguments, sending
from .places import broker_options, rank, result_options
from .settings import Settings, values_of
from .task import Task

__all__ = ["Celery"]
FOREVER = 10 * 365 * 86_400.0  # seconds for which results are kept that shall never expire
_NOT_YET = {
    "add_periodic_task", "amqp", "backend", "Beat", "canvas", "chain", "chord", "chunks", "clock",
    "connection", "connection_for_read", "connection_for_write", "events", "group", "GroupResult",
    "loader", "on_after_configure", "on_after_finalize", "pool", "producer_pool",
    "ResultSet", "signature", "steps", "user_options", "xmap", "xstarmap",
}  # fmt: skip
_HARMLESS = {"set_as_current", "autofinalize", "strict_typing"}  # nothing here is global or lazy
_REPLACEABLE = {"loader", "amqp", "events", "log", "control", "tasks", "fixups"}


class Registry(dict[str, Task]):
    """The tasks of an app by name."""

    def __missing__(self, name: str) -> Task:
        raise NotRegistered(name)


class Celery:
    """An application: its settings, its tasks, and the engine that carries them.

    Making one opens nothing and reads nothing. Settings may be changed until the first message is
    sent or the worker starts. Further keyword arguments are settings.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Sequence[str] = (),
        config_source: Any = None,
        namespace: str | None = None,
        task_cls: type[Task] | None = None,
        changes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        for name in _REPLACEABLE & settings.keys():
            raise NotYetSupported(f"Celery({name}=...) is not implemented in this version")
        given = {k: v for k, v in settings.items() if k not in _HARMLESS}
        named = {"broker_url": broker, "result_backend": backend, "include": include or None}
        given.update(changes or {})
        given.update({key: value for key, value in named.items() if value is not None})
        self.main = main
        self.conf = Settings(given)
        self.tasks = Registry()
        self.control = Control(self)
        self.Task: type[Task] = type("Task", (task_cls or Task,), {"app": self})
        self._related: list[tuple[Callable[[], Iterable[str]], str | None]] = []
        self._remote: dict[tuple[str, str], EngineTask[..., Any]] = {}
        self.engine = Engine()
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)

    def __repr__(self) -> str:
        return f"<Celery {self.main or '__main__'}>"

    def __getattr__(self, name: str) -> Any:
        if name in _NOT_YET:
            raise NotYetSupported(f"app.{name} is not implemented in this version")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ---------------------------------------------------------------- settings

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take settings from a module, class or mapping, or from its name, at the first look."""
        self.conf.load_later(
            lambda: _quietly(obj, namespace) if silent else values_of(obj, namespace)
        )
        if force:
            len(self.conf)

    @property
    def timezone(self) -> datetime.tzinfo:
        """The zone that is configured; instants are UTC whatever it is."""
        zone = self.conf.timezone
        if isinstance(zone, str):
            return ZoneInfo(zone)
        return zone if isinstance(zone, datetime.tzinfo) else datetime.timezone.utc

    def wire_queue(self, queue: str) -> str:
        """Return the queue on which messages in our form travel: no Celery worker reads it."""
        return f"{queue}{self.conf.fsdf_queue_suffix}"

    def celery_queue(self, queue: str) -> str:
        """Return the name by which users know a queue."""
        return queue.removesuffix(self.conf.fsdf_queue_suffix)

    def rank(self, priority: int) -> int:
        """Return the engine's priority for one of Celery's."""
        return rank(self.conf.broker_url, priority)

    def has_results(self) -> bool:
        """Say whether results are kept."""
        return result_options(self.conf.result_backend) is not None

    def options(self, *, results: bool) -> Options:
        """Return the engine's options that come from the settings.

        Raises:
            ImproperlyConfigured: a setting cannot be as it is.
            NotYetSupported: a setting asks for what this version does not have.
        """
        conf = self.conf
        for key in ("task_serializer", "result_serializer"):
            if conf[key] != "json":
                raise NotYetSupported(f"{key}={conf[key]!r}: messages are JSON in this version")
        if conf.task_always_eager:
            raise NotYetSupported("task_always_eager is not implemented in this version")
        options = broker_options(conf.broker_url)
        if results and (kept := result_options(conf.result_backend)):
            options.update(kept)
            options["is_using_rpc_mode"] = True
            options["result_expires"] = _seconds(conf.result_expires)
        return options

    # ---------------------------------------------------------------- tasks

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a function a task: `@app.task`, or `@app.task(bind=True, ...)`.

        Options become the task's attributes. A second function of the same name gives the first's
        task.
        """
        if len(args) == 1 and callable(args[0]) and not options:
            return self._task_of(args[0], {})
        if args:
            raise TypeError("@app.task() takes options by name, or one function")
        return lambda fn: self._task_of(fn, options)

    def _task_of(self, fn: Callable[..., Any], given: Mapping[str, Any]) -> Task:
        options = dict(given)
        name = options.pop("name", None) or self.gen_task_name(fn.__name__, fn.__module__)
        if name in self.tasks:
            return self.tasks[name]
        base, bind = options.pop("base", None) or self.Task, options.pop("bind", False)
        body = {
            "app": self, "name": name, "run": fn if bind else staticmethod(fn),
            "__doc__": fn.__doc__, "__module__": fn.__module__, "__wrapped__": fn, **options,
        }  # fmt: skip
        return self.register_task(type(fn.__name__, (base,), body)())

    def register_task(self, task: Task | type[Task], **options: Any) -> Task:
        """Add a task made as a class with a `run` method; return the object."""
        made = task() if isinstance(task, type) else task
        for key, value in options.items():
            setattr(made, key, value)
        made.app = self
        made.name = made.name or self.gen_task_name(type(made).__name__, type(made).__module__)
        return self.tasks.setdefault(made.name, made)

    def gen_task_name(self, name: str, module: str) -> str:
        """Return the name of a task that was given none."""
        if module == "__main__":
            file = getattr(sys.modules["__main__"], "__file__", None)
            module = self.main or (Path(file).stem if file else module)
        return f"{module}.{name}"

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Let the worker import `related_name` of each package that has such a module."""
        if packages is None:
            raise NotYetSupported("autodiscover_tasks() needs packages in this version")
        found = packages if callable(packages) else (lambda names: lambda: names)(packages)
        self._related.append((found, related_name))
        if force:
            self.import_tasks()

    def import_tasks(self, more: Iterable[str] = ()) -> None:
        """Import what `include`, `imports` and `autodiscover_tasks` name, and more modules."""
        for packages, related in self._related:
            for package in packages():
                _import_related(package, related)
        for name in (*_texts(self.conf.include), *_texts(self.conf.imports), *more):
            importlib.import_module(name)

    # ---------------------------------------------------------------- messages

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send a call by the task's name, which need not be known here; as `Task.apply_async`."""
        if name in self.tasks:
            return self.tasks[name].apply_async(args, kwargs, task_id, **options)
        queue, control = sending(options, self.rank)
        queue = queue or self.conf.task_default_queue
        if (target := self._remote.get((queue, name))) is None:
            known = self.options(results=not self.conf.task_ignore_result)
            known["name"], known["priority"] = name, self.rank(self.conf.task_default_priority or 0)
            target = self.engine.remote(self.wire_queue(queue), **known)
            self._remote[queue, name] = target
        inner = target.send(*arguments(args, kwargs), task_id=task_id, **control)
        return AsyncResult(inner.task_id, app=self, inner=inner)

    def AsyncResult(self, id: str, **options: Any) -> AsyncResult:  # noqa: N802
        """Return the result of a message that anybody sent."""
        return AsyncResult(id, app=self, **options)

    def engine_result(self, id: str) -> Any:
        """Return the engine's result of an id."""
        return self.engine.result(id, self._any(results=True).options)

    def cancel(self, ids: Iterable[str]) -> None:
        """Have messages not run that have not started, whether they keep results or not. Blocks."""
        self.engine.cancel(ids, self._any(results=False).options)

    def _any(self, *, results: bool) -> EngineTask[..., Any]:
        """Return a task that stands for those of messages of which only the id is known."""
        return self.engine.remote("any", **self.options(results=results))

    def plan(self, wire_queue: str, name: str) -> Plan:
        """Return how a task runs, for a child process of the worker."""
        if name not in self.tasks:
            raise UnknownTask(f"no task named {name!r} is registered")
        self.tasks[name].on(self.celery_queue(wire_queue))
        return self.engine.find(wire_queue, name).plan()

    def worker_main(self, argv: Sequence[str]) -> int:
        """Run the worker command for this app: `app.worker_main(["worker", "-l", "INFO"])`."""
        # the commands stand above the app, and are found when one is called
        command = importlib.import_module("fsdf_compat.bin.celery")
        return int(command.run_worker(argv, self))

    def close(self) -> None:
        """Stop what runs here and free every connection."""
        self.engine.close()

    def __enter__(self) -> Celery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _quietly(obj: Any, namespace: str | None) -> Mapping[str, Any]:
    try:
        return values_of(obj, namespace)
    except (ImportError, ImproperlyConfigured):
        return {}


def _texts(value: Any) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value or ()


def _import_related(package: str, related: str | None) -> None:
    """Import a package and, where it has one, its module `related`.

    As in Celery, what cannot be imported itself stands for what it is in: Django's INSTALLED_APPS
    may name classes.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        inside = package.rpartition(".")[0]
        if error.name != package or not (inside and related):
            raise
        package = inside
    if related:
        try:
            importlib.import_module(name := f"{package}.{related}")
        except ModuleNotFoundError as error:
            if error.name != name:
                raise


def _seconds(value: Any) -> float:
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    return float(value) if value else FOREVER
