"""The engine: configuration, brokers, stores, tasks and consumers of one program.

Most programs use the default engine, through `task_deco`; a layer on top makes its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .checks import check_fit, check_server, fitting, place
from .contracts import Broker, Plan, Pool, PoolCapability, ResultStore
from .controls.expiry import Expiry
from .controls.rate import Rate
from .core.binding import Unnamed, elsewhere
from .core.consumer import Consumer
from .core.due import Deadlines
from .core.listeners import Listeners
from .core.publisher import Publisher
from .core.replies import Replies
from .core.worker import ConsumerHandle, on_signals, stop_all
from .errors import ConfigurationError, UnknownTask
from .options import Options, TaskOptions, resolve_options
from .registry import brokers, pools, stores
from .result import AsyncResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .task import Task

__all__ = ["Engine", "default_engine", "reset_default_engine", "resolve_plan"]

P = ParamSpec("P")
R = TypeVar("R")
_QueueKey = tuple[str, str, str]  # broker's name, its URL, queue


class Engine:
    """All methods may be called by any thread. Making one opens nothing."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        """`settings` are configuration keys, stronger than every other source."""
        from .config import Config  # a quarter of the time that importing the package would take

        self.config = Config(settings or {})
        self.listeners = Listeners()
        self._tasks: dict[_QueueKey, dict[str, Task[..., Any]]] = {}
        self._brokers: dict[tuple[str, str], Broker] = {}
        self._publishers: dict[int, Publisher] = {}
        self._replies: dict[tuple[str, str], Replies] = {}
        self._handles: dict[_QueueKey, ConsumerHandle] = {}
        self._lock = threading.RLock()
        self._has_signals = False
        self.epoch = object()  # changes when brokers and stores are made anew
        _engines.add(self)

    # ---------------------------------------------------------------- tasks

    def task(self, fn: Callable[P, R], queue: str, /, **options: Unpack[Options]) -> Task[P, R]:
        """Declare `fn` as a task of `queue`.

        Raises:
            ConfigurationError: a wrong option, or the queue has a task of this name already.
        """
        return self.declare(fn, queue, resolve_options(options))

    def declare(self, fn: Callable[P, R], queue: str, options: TaskOptions) -> Task[P, R]:
        """As `task`, with options that are checked already."""
        if not isinstance(queue, str) or not queue:
            raise ConfigurationError(f"the queue's name {queue!r} must be text and not empty")
        from .task import Task  # wrapt takes as long to import as all the rest

        task = Task(fn, queue, options, self)
        pools.name(task.mode())  # a wrong one is told now, not when it is consumed
        key = self._key(task)
        with self._lock:
            tasks = self._tasks.setdefault(key, {})
            known = tasks.get(options.name)
            if known is not None and place(known.fn) != place(fn):
                which = f"a task named {options.name!r}" if options.name else "an unnamed task"
                raise ConfigurationError(
                    f"queue {queue!r} has {which} already, {known.fn.__qualname__};"
                    " give each of the queue's tasks a name= of its own"
                )
            if known is None and tasks and "" in {*tasks, options.name}:
                raise ConfigurationError(
                    f"queue {queue!r} has several tasks, and one of them has no name;"
                    " give each of them a name="
                )
            if handle := self._handles.get(key):
                check_fit(handle.pool, [task])
                self._serve(handle, [*tasks.values(), task])
            tasks[options.name] = task
        return task

    def tasks(self) -> list[Task[..., Any]]:
        """Return every declared task."""
        return [task for tasks in self._tasks.values() for task in tasks.values()]

    def find(self, queue: str, name: str = "") -> Task[..., Any]:
        """Return a declared task.

        Raises:
            UnknownTask: there is none.
        """
        for task in self.tasks():
            if task.queue == queue and task.options.name == name:
                return task
        known = ", ".join(sorted({t.queue for t in self.tasks()})) or "none"
        raise UnknownTask(
            f"no task {name!r} is declared on queue {queue!r} (declared queues: {known}); import"
            " the module that declares it, outside of `if __name__ == '__main__'`"
        )

    def remote(self, queue: str, /, **options: Unpack[Options]) -> Task[..., Any]:
        """Return a task that is known by `name=` only, to be pushed: its function is elsewhere."""
        from .task import Task

        return Task(elsewhere, queue, resolve_options(options), self, Unnamed())

    def _key(self, task: Task[..., Any]) -> _QueueKey:
        return (*self._broker_key(task.options), task.queue)

    # ---------------------------------------------------------------- services

    def _broker_key(self, options: TaskOptions) -> tuple[str, str]:
        kind = options.broker_kind
        name = brokers.name(self.config["BROKER_KIND"] if kind is None else kind)  # type: ignore[arg-type]
        return name, options.broker_url or ""

    def broker(self, kind: int | str | None = None, url: str | None = None) -> Broker:
        """Return the one broker object of a kind and URL; by default as configured.

        Raises:
            ConfigurationError: there is no such broker, or its client is not installed.
        """
        return self.broker_of(TaskOptions(broker_kind=kind, broker_url=url))

    def broker_of(self, options: TaskOptions) -> Broker:
        """Return the broker of a task's options."""
        key = self._broker_key(options)
        if broker := self._brokers.get(key):
            return broker
        cls = brokers.load(key[0])
        with self._lock:
            if key not in self._brokers:
                url = key[1] or (self.config.text(cls.setting) if cls.setting else "")
                self._brokers[key] = fitting(cls(url))
            return self._brokers[key]

    def publisher(self, broker: Broker) -> Publisher:
        """Return the one publisher of a broker.

        Raises:
            ConfigurationError: this process is a child that is still importing the main module.
        """
        if found := self._publishers.get(id(broker)):
            return found
        from .core.supervisor import importing_main

        if importing_main():
            raise ConfigurationError(
                "this child process is importing the main module; put `push` and `consume` under"
                " `if __name__ == '__main__':`"
            )
        with self._lock:
            return self._publishers.setdefault(id(broker), Publisher(broker))

    def replies(self, options: TaskOptions | None = None) -> Replies:
        """Return the results of a task's result store; by default the configured broker's."""
        options = options or TaskOptions()
        name = options.result_store or self.config.text("RESULT_STORE")
        if not name:
            broker = self._broker_key(options)[0]
            name = next((n for n in stores.names() if broker.startswith(n)), "sqlite")
        name = stores.name(name)
        cls = stores.load(name)
        url = self.config.text(cls.setting) if cls.setting else ""
        if options.result_url:
            url = options.result_url
        elif options.broker_url and name in self._broker_key(options)[0]:
            url = options.broker_url
        with self._lock:
            if (name, url) not in self._replies:
                self._replies[name, url] = Replies(cls(url))
            return self._replies[name, url]

    def result(self, task_id: str, options: TaskOptions | None = None) -> AsyncResult:
        """Return the result of a message that anybody pushed."""
        return AsyncResult(task_id, self.replies(options))

    # ---------------------------------------------------------------- consuming

    def consume(
        self, task: Task[..., Any], *, pool: Pool | None = None, ceiling: int | None = None
    ) -> ConsumerHandle:
        """Start the consumer of the task's queue, with all tasks declared on it.

        The task's options say how; a queue that is consumed already keeps its consumer. Does not
        block. Raises ServerRefused where no retry would help; an absent server is waited for.
        """
        key = self._key(task)
        with self._lock:
            if handle := self._handles.get(key):
                return handle
            self.publisher(broker := self.broker_of(task.options))
            check_server(broker)
            own_pool = pool is None and task.options.specify_concurrent_pool is None
            pool = pool or task.options.specify_concurrent_pool or self._new_pool(task)
            tasks = self._on(key)
            check_fit(pool, tasks)
            self._results(tasks)  # what is wrong with them is told before a thread starts
            handle = self._handle(key, task, pool, own_pool, ceiling)
            self._serve(handle, tasks)
            self._handles[key] = handle
            if not self._has_signals:
                self._has_signals = on_signals(self.stop)
        handle.start()
        return handle

    def _handle(
        self, key: _QueueKey, task: Task[..., Any], pool: Pool, own_pool: bool, ceiling: int | None
    ) -> ConsumerHandle:
        from .core.worker_process import ask_restart

        options = task.options
        if len({each.options.qps for each in self._on(key)}) > 1:
            raise ConfigurationError(
                f"the tasks of queue {task.queue!r} differ in qps, which paces a whole queue;"
                " give them all the same, or queues of their own"
            )
        consumer = Consumer(
            self.broker_of(options),
            task.queue,
            pool,
            valve=Rate(options.qps) if options.qps else None,
            gates=[Expiry()],
            lease=options.lease or self.config.number("LEASE"),
            ceiling=options.prefetch if ceiling is None else ceiling,
            overload=ask_restart,
            listeners=self.listeners,
        )
        return ConsumerHandle(
            consumer,
            own_pool=own_pool,
            deadlines=Deadlines(pool),
            listeners=self.listeners,
            forget=lambda: self._forget(key),
        )

    def _forget(self, key: _QueueKey) -> None:
        self._handles.pop(key, None)

    def _on(self, key: _QueueKey) -> list[Task[..., Any]]:
        """Return the tasks of a queue, as brokers are configured now."""
        return [task for task in self.tasks() if self._key(task) == key]

    def _results(self, tasks: Iterable[Task[..., Any]]) -> ResultStore | None:
        """Return the one store that the tasks of a queue keep results in."""
        found = {self.replies(t.options).store for t in tasks if t.options.is_using_rpc_mode}
        if len(found) > 1:
            raise ConfigurationError(
                "the tasks of a queue differ in their result store; give them the same, or queues"
                " of their own"
            )
        return found.pop() if found else None

    def _serve(self, handle: ConsumerHandle, tasks: Iterable[Task[..., Any]]) -> None:
        """Let a consumer run these tasks."""
        handle.consumer.outbox.results = self._results(tasks)
        kills = PoolCapability.KILLS in handle.pool.capabilities
        for task in tasks:
            handle.consumer.add(task.plan(None if kills else handle.deadlines.watch))

    def new_pool(self, mode: int | str, size: int, **arguments: Any) -> Pool:
        """Make a pool for several consumers, who don't close it; `arguments` are its class's own.

        Raises:
            ConfigurationError: there is no such mode, or it cannot work here.
        """
        return pools.load(mode)(size, **arguments)  # type: ignore[call-arg]

    def _new_pool(self, task: Task[..., Any]) -> Pool:
        tasks = self._on(self._key(task))
        modules = {each.fn.__module__ for each in tasks} - {"__main__", "__mp_main__"}
        pool = pools.load(task.mode())
        return pool.build(task.options.concurrent_num, task.options, sorted(modules))

    def consume_all(self, tasks: Iterable[Task[..., Any]] | None = None) -> list[ConsumerHandle]:
        """Start the consumers of these tasks, by default of all; one per queue."""
        handles = {id(h): h for h in map(self.consume, self.tasks() if tasks is None else tasks)}
        return list(handles.values())

    def consume_named(self, queue: str, name: str = "") -> ConsumerHandle:
        """Start the consumer of a queue by its task's name, as child processes do."""
        return self.consume(self.find(queue, name))

    def handles(self) -> Sequence[ConsumerHandle]:
        """Return the consumers that run."""
        return list(self._handles.values())

    def at_rest(self, task: Task[..., Any]) -> int | None:
        """Return None while this process has messages of the task's queue; see Consumer."""
        handle = self._handles.get(self._key(task))
        return handle.consumer.at_rest() if handle else 0

    def stop(self, drain: bool = True, timeout: float = 30.0) -> None:
        """Stop all consumers at the same time. Blocks, but returns at once inside a run."""
        stop_all(self.handles(), drain=drain, timeout=timeout)

    def close(self) -> None:
        """Stop everything and free every connection. The engine can be used again."""
        self.stop(drain=False)
        with self._lock:
            for replies in self._replies.values():
                replies.close()
                replies.store.close()
            for broker in self._brokers.values():
                broker.close()
            self._replies.clear()
            self._brokers.clear()
            self._publishers.clear()
            self.epoch = object()

    def after_fork(self) -> None:
        """In a forked child: the parent's consumers, locks and connections are not ours."""
        self._lock = threading.RLock()
        self._handles.clear()
        self._brokers.clear()
        self._publishers.clear()
        self._replies.clear()
        self.epoch = object()
        self._has_signals = False


_default: Engine | None = None
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()  # whose state a forked child must not share
_making = threading.Lock()


def default_engine() -> Engine:
    """Return the engine of `task_deco`; made at the first call."""
    global _default
    if _default is None:
        with _making:
            if _default is None:
                _default = Engine()
    return _default


def reset_default_engine() -> None:
    """Close the default engine and forget its tasks. For tests."""
    global _default
    with _making:
        engine, _default = _default, None
    if engine is not None:
        engine.close()


def resolve_plan(queue: str, name: str) -> Plan:
    """Return the plan of a declared task, as a child process runs it.

    Raises:
        UnknownTask: this process has not declared it.
    """
    return default_engine().find(queue, name).plan()


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    for engine in _engines:
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
