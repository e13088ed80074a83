"""The engine: configuration, brokers, stores, tasks and consumers of one program.

Most programs use the default engine, through `task_deco`; a layer on top makes its own.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .barrier import compose
from .checks import check_fit, check_mode, check_name, check_server
from .contracts import Broker, Codec, Gate, Layout, Marks, Pool
from .controls.cancelled import cancel
from .core.binding import Unnamed, elsewhere
from .core.inheritance import inherited
from .core.publisher import Publisher
from .core.signals import on_signals
from .core.worker import GRACE, ConsumerHandle
from .declaration import check_importing
from .errors import ConfigurationError, MissingExtra, UnknownTask
from .listeners import Listeners
from .message import FLAT
from .options import Options, TaskOptions, resolve_options
from .pooling import beside
from .registry import brokers, pools
from .replies import Replies
from .resolver import Found, Resolver, let_resolve
from .result import AsyncResult
from .services import Services

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .contracts import Plan
    from .task import Task

__all__ = ["Engine", "default_engine", "reset_default_engine"]

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("fsdf.engine")
_QueueKey = tuple[str, str, str]  # broker's name, its URL, queue


class Engine:
    """All methods may be called by any thread. Making one opens nothing."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        """`settings` are configuration keys, stronger than every other source."""
        from .config import Config  # a quarter of the time that importing the package would take

        self.config = Config(settings or {})
        self.listeners = Listeners()
        self.compose = compose  # what a completed group sends; a layer on top has its own
        self.amend: Callable[[Plan], Plan] = lambda plan: plan  # a layer's: runner, sinks, ...
        self.gates: tuple[Gate, ...] = ()  # a layer's: they judge what has not expired
        self.codecs: tuple[Codec, ...] = (FLAT,)  # asked in order; a layer's own come first
        self.resolver: Resolver | str | None = None  # asked for tasks that nobody has declared
        self.reports = True  # what becomes of messages is logged; a layer on top may do so itself
        self._tasks: dict[_QueueKey, dict[str, Task[..., Any]]] = {}
        self.services = Services(self.config)
        self._handles: dict[_QueueKey, ConsumerHandle] = {}
        self._lock = threading.RLock()
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
        self._check_queue(queue, options)
        from .task import Task  # wrapt takes as long to import as all the rest

        task = Task(fn, queue, options, self)
        check_mode(task)
        key = self._key(task)
        with self._lock:
            tasks = self._tasks.setdefault(key, {})
            check_name(task, tasks)
            if handle := self._handles.get(key):
                check_fit(handle.pool, [task])
                from .assembly import serve

                serve(self, handle, [*tasks.values(), task])
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

        resolved = resolve_options(options)
        self._check_queue(queue, resolved)
        return Task(elsewhere, queue, resolved, self, Unnamed())

    def _check_queue(self, queue: str, options: TaskOptions) -> None:
        """Ask the broker whether this can be a queue of its own there."""
        with suppress(MissingExtra):  # told when the broker is used
            brokers.load(self.services.kind_of(options)).valid_queue(queue)

    def _key(self, task: Task[..., Any]) -> _QueueKey:
        return (*self.services.place_of(task.options), task.queue)

    # ---------------------------------------------------------------- services

    def broker(self, kind: int | str | None = None, url: str | None = None) -> Broker:
        """Return the one broker object of a kind and URL; by default as configured.

        Raises:
            ConfigurationError: there is no such broker, or its client is not installed.
        """
        return self.broker_of(TaskOptions(broker_kind=kind, broker_url=url))

    def broker_of(self, options: TaskOptions) -> Broker:
        """Return the broker of a task's options."""
        return self.services.broker_of(options)

    def publisher(self, broker: Broker) -> Publisher:
        """Return the one publisher of a broker.

        Raises:
            ConfigurationError: this process is a child that is still importing the main module.
        """
        return self.services.publisher(broker)

    def replies(self, options: TaskOptions | None = None, layout: Layout | None = None) -> Replies:
        """Return the results of a task's store, or of one layout there; else of the broker's."""
        options = options or TaskOptions()
        return self.services.results.replies(options, self.services.kind_of(options), layout)

    def marks(self, options: TaskOptions) -> Marks:
        """Return where marks about a task's messages lie: beside its broker."""
        return self.services.results.marks(options, self.services.kind_of(options))

    def result(self, task_id: str, options: TaskOptions | None = None) -> AsyncResult[Any]:
        """Return the result of a message that anybody pushed."""
        cancel = partial(self.cancel, options=options)
        return AsyncResult(task_id, self.replies(options), cancel=cancel)

    def cancel(
        self, ids: Iterable[str], options: TaskOptions | None = None, life: float | None = None
    ) -> None:
        """Have messages not run that have not started: they end as revoked. Blocks.

        `options` are those of their task, which has `cancellable=True`; by default the configured
        broker's. It is remembered for `life` seconds, else as long as results.
        """
        options = options or TaskOptions()
        life = life or options.result_expires or self.config.number("RESULT_EXPIRES")
        cancel(self.marks(options), [ids] if isinstance(ids, str) else ids, life)

    # ---------------------------------------------------------------- consuming

    def consume(
        self,
        task: Task[..., Any],
        *,
        pool: Pool | None = None,
        ceiling: int | None = None,
        lend: bool = False,
    ) -> ConsumerHandle:
        """Start the consumer of the task's queue, with all tasks declared on it.

        The task's options say how; a queue that is consumed already keeps its consumer. Does not
        block. With `lend` its pool may have the calling thread, which then comes to `join_all`.
        Raises ServerRefused where no retry would help; an absent server is waited for.
        """
        from .assembly import handle_of, serve  # only who consumes needs these
        from .log.setup import console_if_unconfigured
        from .worker_process import tell_serving

        key = self._key(task)
        with self._lock:
            if handle := self._handles.get(key):
                return handle
            check_importing()
            console_if_unconfigured(self.config)
            check_server(broker := self.broker_of(task.options))
            tasks, forget = self._on(key), partial(self._handles.pop, key, None)
            handle = handle_of(self, task, tasks, pool, ceiling, forget)
            serve(self, handle, tasks)
            let_resolve(self, task, handle)
            handle.serve = handle.pool.lend() if lend else None
            self._handles[key] = handle
            on_signals(self.stop)
        tell_serving()
        handle.start()
        log.info("consuming queue %s from %s", task.queue, self.services.where(broker))
        return handle

    def _on(self, key: _QueueKey) -> list[Task[..., Any]]:
        """Return the tasks of a queue, as brokers are configured now."""
        return [task for task in self.tasks() if self._key(task) == key]

    def serve_found(self, handle: ConsumerHandle, like: Task[..., Any], found: Found) -> None:
        """Let the consumer that `like` has started run a task of its queue that nobody declared."""
        from .assembly import serve

        with self._lock:
            declared = self._on(self._key(like))
            if all(task is not found[0] for task in declared):  # else it was served at that
                serve(self, handle, declared, found)
                handle.found.append(found)

    def new_pool(self, mode: int | str, size: int, *, coroutines: int = 0, **options: Any) -> Pool:
        """Make a pool for several consumers, who don't close it; `options` are its class's own.

        With `coroutines` it runs coroutine functions, too, in so many slots of their own.
        Raises ConfigurationError where there is no such mode, or it cannot work here.
        """
        pool = pools.load(mode)(size, **options)  # type: ignore[call-arg]
        return beside(pool, coroutines) if coroutines else pool

    def consume_all(
        self, tasks: Iterable[Task[..., Any]] | None = None, *, lend: bool = False
    ) -> list[ConsumerHandle]:
        """Start the consumers of these tasks, by default of all; one per queue.

        With `lend` the first of them whose pool takes it has the calling thread.
        """
        handles = dict[int, ConsumerHandle]()
        for task in self.tasks() if tasks is None else tasks:
            lent = any(handle.serve for handle in handles.values())
            handle = self.consume(task, lend=lend and not lent)
            handles[id(handle)] = handle
        return list(handles.values())

    def run(self, tasks: Iterable[Task[..., Any]] | None = None, *, grace: float = GRACE) -> None:
        """Consume these tasks, by default all, until they are stopped. Blocks.

        The first queue in SINGLE_THREAD has its runs in the calling thread. In the main thread a
        signal drains for `grace` seconds and a second one ends at once; SystemExit or
        KeyboardInterrupt is raised afterwards.

        Raises:
            ConfigurationError: there is no task.
        """
        from .foreground import run

        if not (handles := self.consume_all(tasks, lend=True)):
            raise ConfigurationError("no task to consume; import the module that declares it first")
        run(self, handles, grace)

    def handles(self) -> Sequence[ConsumerHandle]:
        """Return the consumers that run."""
        return list(self._handles.values())

    def at_rest(self, task: Task[..., Any]) -> int | None:
        """Return None while this process has messages of the task's queue; see Consumer."""
        handle = self._handles.get(self._key(task))
        return handle.consumer.at_rest() if handle else 0

    def stop(self, drain: bool = True, timeout: float = 30.0) -> None:
        """Stop all consumers at the same time. Blocks, but returns at once inside a run."""
        if not self._handles:
            return
        from .foreground import stop_all

        stop_all(self.handles(), drain=drain, timeout=timeout)

    def close(self) -> None:
        """Stop everything and free every connection. The engine can be used again."""
        self.stop(drain=False)
        self.services.close()

    @property
    def epoch(self) -> object:
        """Another object once brokers and stores are made anew: after a close, or a fork."""
        return self.services.epoch

    def after_fork(self) -> None:
        """In a forked child: the parent's consumers, locks and connections are not ours."""
        self._lock = threading.RLock()
        for handle in self._handles.values():
            handle.consumer.disown()
        self._handles.clear()
        self.services.forget()


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


def _given() -> dict[str, object]:
    """What children are configured with; they log through us."""
    from .log.setup import console_if_unconfigured

    config = default_engine().config
    console_if_unconfigured(config)
    return dict(config.patches())


inherited["patches"] = _given, lambda patches: default_engine().config.patch(patches)


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    for engine in _engines:
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
