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
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from .barrier import compose, join_groups, store_of
from .checks import check_fit, check_mode, check_name, check_rate, check_server, fitting, one_store
from .contracts import Broker, Codec, Layout, Pool, PoolCapability, ResultStore
from .controls.cancelled import Cancelled, cancel
from .controls.expiry import Expiry
from .controls.rate import Rate
from .core.binding import Unnamed, elsewhere
from .core.consumer import Consumer
from .core.due import Deadlines
from .core.inheritance import inherited
from .core.publisher import Publisher
from .core.signals import on_signals
from .core.worker import ConsumerHandle, stop_all
from .declaration import check_importing
from .errors import MissingExtra, UnknownTask
from .listeners import Listeners
from .message import FLAT
from .options import Options, TaskOptions, resolve_options
from .pooling import beside, pool_for
from .registry import brokers, pools
from .replies import Replies
from .resolver import Found, Resolver, let_resolve
from .result import AsyncResult
from .result_stores import ResultStores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .contracts import Plan
    from .task import Task

__all__ = ["Engine", "default_engine", "reset_default_engine"]

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("fsdf.engine")
_Tasks: TypeAlias = "Iterable[Task[..., Any]]"
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
        self.codecs: tuple[Codec, ...] = (FLAT,)  # asked in order; a layer's own come first
        self.resolver: Resolver | str | None = None  # asked for tasks that nobody has declared
        self.reports = True  # what becomes of messages is logged; a layer on top may do so itself
        self._tasks: dict[_QueueKey, dict[str, Task[..., Any]]] = {}
        self._brokers: dict[tuple[str, str], Broker] = {}
        self._publishers: dict[int, Publisher] = {}
        self._replies = ResultStores(self.config)
        self._handles: dict[_QueueKey, ConsumerHandle] = {}
        self._lock = threading.RLock()
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

        resolved = resolve_options(options)
        self._check_queue(queue, resolved)
        return Task(elsewhere, queue, resolved, self, Unnamed())

    def _check_queue(self, queue: str, options: TaskOptions) -> None:
        """Ask the broker whether this can be a queue of its own there."""
        with suppress(MissingExtra):  # told when the broker is used
            brokers.load(self._broker_key(options)[0]).valid_queue(queue)

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
        check_importing()
        with self._lock:
            if id(broker) not in self._publishers:
                self._publishers[id(broker)] = Publisher(broker)
                with suppress(Exception):  # a handler of the user's that fails is no error of ours
                    log.info("pushing to %s", self._where(broker))
            return self._publishers[id(broker)]

    def _where(self, broker: Broker) -> str:
        """Return a broker's kind and place, fit to be shown."""
        kinds = (name for (name, _), known in self._brokers.items() if known is broker)
        return f"{next(kinds, '')} {broker.address}".strip()

    def replies(self, options: TaskOptions | None = None, layout: Layout | None = None) -> Replies:
        """Return the results of a task's store, or of one layout there; else of the broker's."""
        options = options or TaskOptions()
        return self._replies.replies(options, self._broker_key(options)[0], layout)

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
        marks = self._replies.marks(options, self._broker_key(options)[0])
        cancel(marks, [ids] if isinstance(ids, str) else ids, life)

    # ---------------------------------------------------------------- consuming

    def consume(
        self, task: Task[..., Any], *, pool: Pool | None = None, ceiling: int | None = None
    ) -> ConsumerHandle:
        """Start the consumer of the task's queue, with all tasks declared on it.

        The task's options say how; a queue that is consumed already keeps its consumer. Does not
        block. Raises ServerRefused where no retry would help; an absent server is waited for.
        """
        from .log.setup import console_if_unconfigured  # only who consumes needs it
        from .worker_process import tell_serving

        key = self._key(task)
        with self._lock:
            if handle := self._handles.get(key):
                return handle
            check_importing()
            console_if_unconfigured(self.config)
            check_server(broker := self.broker_of(task.options))
            tasks = self._on(key)
            pool = pool or task.options.specify_concurrent_pool
            own_pool, pool = pool is None, pool or pool_for(task, tasks)
            check_fit(pool, tasks)
            self._results(tasks)  # what is wrong with them is told before a thread starts
            handle = self._handle(key, task, pool, own_pool, ceiling)
            self._serve(handle, tasks)
            let_resolve(self, task, handle)
            self._handles[key] = handle
            on_signals(self.stop)
        tell_serving()
        handle.start()
        log.info("consuming queue %s from %s", task.queue, self._where(broker))
        return handle

    def _handle(
        self, key: _QueueKey, task: Task[..., Any], pool: Pool, own_pool: bool, ceiling: int | None
    ) -> ConsumerHandle:
        from .log.build import report_of
        from .worker_process import ask_restart

        options, broker = task.options, self.broker_of(task.options)
        check_rate(task.queue, self._on(key))
        consumer = Consumer(
            broker,
            task.queue,
            pool,
            valve=Rate(options.qps) if options.qps else None,
            gates=[Expiry()],
            codecs=self.codecs,
            lease=options.lease or self.config.number("LEASE"),
            ceiling=options.prefetch if ceiling is None else ceiling,
            overload=ask_restart,
            listeners=self.listeners,
        )
        if self.reports:
            report = report_of(consumer, broker, options, self.config, key[0])
            consumer.report = consumer.outbox.report = report
        return ConsumerHandle(
            consumer,
            own_pool=own_pool,
            deadlines=Deadlines(pool),
            listeners=self.listeners,
            forget=lambda: self._handles.pop(key, None),
        )

    def _on(self, key: _QueueKey) -> list[Task[..., Any]]:
        """Return the tasks of a queue, as brokers are configured now."""
        return [task for task in self.tasks() if self._key(task) == key]

    def _results(self, tasks: Iterable[Task[..., Any]]) -> ResultStore | None:
        """Return the one store that the tasks of a queue keep results and groups in."""
        return one_store(store_of(self, t.options) for t in tasks if t.options.needs_store)

    def _serve(self, handle: ConsumerHandle, tasks: _Tasks, *found: Found) -> None:
        """Let a consumer run these tasks."""
        served = [*handle.found, *found, *((task, "") for task in tasks)]
        handle.consumer.outbox.results = self._results(task for task, _ in served)
        kills = PoolCapability.KILLS in handle.pool.capabilities
        for task, resolver in served:
            plan = task.plan(None if kills else handle.deadlines.watch)
            o, key = task.options, self._broker_key(task.options)[0]
            gate = Cancelled(self._replies.marks(o, key)) if o.cancellable else None
            plan = plan._replace(trace=o.is_print_detail_exception, gate=gate, resolver=resolver)
            handle.consumer.add(plan)
            join_groups(self, o, handle.consumer.outbox)

    def serve_found(self, handle: ConsumerHandle, like: Task[..., Any], found: Found) -> None:
        """Let the consumer that `like` has started run a task of its queue that nobody declared."""
        with self._lock:
            declared = self._on(self._key(like))
            if all(task is not found[0] for task in declared):  # else it was served at that
                self._serve(handle, declared, found)
                handle.found.append(found)

    def new_pool(self, mode: int | str, size: int, *, coroutines: int = 0, **options: Any) -> Pool:
        """Make a pool for several consumers, who don't close it; `options` are its class's own.

        With `coroutines` it runs coroutine functions, too, in so many slots of their own.
        Raises ConfigurationError where there is no such mode, or it cannot work here.
        """
        pool = pools.load(mode)(size, **options)  # type: ignore[call-arg]
        return beside(pool, coroutines) if coroutines else pool

    def consume_all(self, tasks: Iterable[Task[..., Any]] | None = None) -> list[ConsumerHandle]:
        """Start the consumers of these tasks, by default of all; one per queue."""
        handles = {id(h): h for h in map(self.consume, self.tasks() if tasks is None else tasks)}
        return list(handles.values())

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
            for close in (self._replies.close, *(b.close for b in self._brokers.values())):
                close()
            for made in (self._brokers, self._publishers):
                made.clear()
            self.epoch = object()

    def after_fork(self) -> None:
        """In a forked child: the parent's consumers, locks and connections are not ours."""
        self._lock = threading.RLock()
        for handle in self._handles.values():
            handle.consumer.disown()
        for made in (self._handles, self._brokers, self._publishers, self._replies):
            made.clear()
        self.epoch = object()


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
