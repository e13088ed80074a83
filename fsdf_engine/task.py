"""A decorated function: calling it runs it here, `push` runs it elsewhere."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import reduce
from itertools import islice
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar, overload

from .apart import astore_in, store_in
from .assembly import plan_of
from .barrier import grouping_of, push_calls, services_of
from .call import Control, arguments_of, call_of, calls_of
from .checks import able
from .contracts import Broker, Capability, DeadMessage, Part, Plan, QueueSize
from .core.binding import Unnamed
from .core.forms import replays
from .core.publisher import Publisher
from .core.run import Watch, is_coroutine
from .core.worker import GRACE, ConsumerHandle
from .core.writer import Writer, moment, writer
from .declaration import Form, binding_of, declaring, form_of, home_of, owner_of, title
from .errors import ConfigurationError, patience_of
from .foreground import run
from .options import TaskOptions
from .replies import Replies
from .result import AsyncResult, Results, canceller
from .transparent import Doc, Proxy, signed

P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W")

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
    from typing_extensions import TypeVar as DefaultingTypeVar

    from .declaration import Home
    from .engine import Engine
    from .grouping import Grouping
    from .historic.control import PriorityConsumingControlConfig
    from .supervisor import Supervisor

    V = DefaultingTypeVar("V", default=R)  # the result: of an `async def` what it is awaited to
else:
    V = TypeVar("V")

__all__ = ["Task"]
_Calls = Iterable[tuple[Any, ...] | list[Any] | Mapping[str, Any]]
_Named: TypeAlias = Mapping[str, Any] | str | bytes  # arguments
GROUP = 500  # messages a flush of push_many takes
_PARTS = {part.name.lower(): part for part in Part if part.name}


class Task(Proxy, Generic[P, R, V]):
    """A function with a queue: call it to run it here, push it to run it elsewhere.

    Otherwise it is as transparent as `wrapt` makes it: attributes that it does not have itself are
    the function's.
    """

    __doc__ = Doc(__doc__)

    def __init__(
        self,
        fn: Callable[P, R],
        queue: str,
        options: TaskOptions,
        engine: Engine,
        binding: Unnamed | None = None,
    ) -> None:
        function, form = form_of(fn)
        super().__init__(function)
        if not (binding or options.is_consuming_function_use_multi_params):
            from .historic.body import WholeBody

            binding = WholeBody(function)
        self._self_fn, self._self_queue, self._self_options = function, queue, options
        self._self_engine, self._self_binding = engine, binding or binding_of(function, form)
        self._self_told = self._self_binding.returned, canceller(engine, options)
        self._self_form, self._self_home = form, home_of(function)
        self._self_owner: type | None = None  # of a classmethod, as of the last access
        self._self_epoch: object = None  # of the engine, when its services were looked up
        self._self_services: tuple[Publisher, Replies | None, Writer]

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Any: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A task in a class is called as its function would be; its methods are the task's."""
        if self._self_form is Form.CLASS:
            cls = instance if isinstance(instance, type) else owner or type(instance)
            self._self_owner = declaring(self.fn, cls)
            return MethodType(self, cls)
        if instance is None or self._self_form is Form.STATIC:
            return self
        return MethodType(self, instance)

    def __reduce__(self) -> str:
        return title(self.fn)

    def __reduce_ex__(self, protocol: Any) -> str:
        return self.__reduce__()

    if not TYPE_CHECKING:  # what is misspelt is an error there

        def __getattr__(self, name: str) -> Any:
            """What is not ours is the function's, or what tasks had in the old framework."""
            from .historic.attributes import attribute

            return attribute(self, name, super().__getattr__)

    def __repr__(self) -> str:
        return f"<task {title(self.fn)} on queue {self.queue!r}>"

    @property
    def fn(self) -> Callable[..., Any]:
        """The function itself."""
        return self._self_fn

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._self_queue

    @property
    def options(self) -> TaskOptions:
        """Its options, with their defaults."""
        return self._self_options

    @property
    def home(self) -> Home:
        """Where it is declared, for processes that need it, too."""
        return self._self_home

    @property
    def is_coroutine(self) -> bool:
        """Say whether the function is `async def`."""
        return is_coroutine(self.fn)

    @property
    def is_shared(self) -> bool:
        """Say whether other processes see its queue."""
        return Capability.SHARED in self._broker().capabilities

    def mode(self) -> int | str:
        """Return its concurrent mode: as declared, else asyncio for `async def`, else threads."""
        mode = self.options.concurrent_mode
        if mode is None:
            return "asyncio" if self.is_coroutine else "threads"
        return mode

    def plan(self, watch: Watch | None = None) -> Plan:
        """Compile how a message of this task is run; `watch` as for `compile_plan`."""
        self._self_binding.prepare()
        bind = self._self_binding.bind
        return plan_of(self._self_engine, self, self._runnable(), bind, watch)

    def _runnable(self) -> Callable[..., Any]:
        if self._self_form is not Form.CLASS:
            return self.fn
        return MethodType(self.fn, self._self_owner or owner_of(self.fn))

    def _broker(self) -> Broker:
        return self._self_engine.broker_of(self.options)

    def _services(self) -> tuple[Publisher, Replies | None, Writer]:
        """Return where messages go, where results arrive (None: they are off), and the writer.

        Found once: a look-up reads the configuration.
        """
        engine = self._self_engine
        if self._self_epoch is not (epoch := engine.services.epoch):
            replies = engine.replies(self.options) if self.options.is_using_rpc_mode else None
            publisher = engine.publisher(broker := self._broker())
            if self._self_options.priority:
                able(broker, self._self_queue, (self,))
            address = replies.address if replies else ""
            name, options = self._self_binding.name, self._self_options
            write = writer(name, self._self_queue, options.name, options.priority, address)
            self._self_services = publisher, replies, write
            self._self_epoch = epoch
        return self._self_services

    @signed
    def push(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[V]:
        """Publish a call; returns once the broker has the message.

        Raises:
            ArgumentError: the arguments do not fit the function, or have no JSON form.
            PublishError: the broker did not, or perhaps not, store it.
            Unavailable: the broker cannot be reached; nothing was sent.
        """
        publisher, replies, write = self._services()
        outgoing = write(args, kwargs, now := moment())
        if replies:
            replies.expect((outgoing.id,), now)
        publisher.publish((outgoing,))
        return AsyncResult(outgoing.id, replies, self._self_queue, *self._self_told)

    delay = push

    @signed
    async def apush(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[V]:
        """As `push`, without blocking the loop."""
        publisher, replies, write = self._services()
        outgoing = write(args, kwargs, now := moment())
        if replies:
            replies.expect((outgoing.id,), now)
        await publisher.apublish((outgoing,))
        return AsyncResult(outgoing.id, replies, self._self_queue, *self._self_told)

    def publish(
        self,
        message: _Named,
        *,
        priority_control_config: PriorityConsumingControlConfig | None = None,
        **control: Unpack[Control],
    ) -> AsyncResult[V]:
        """Publish named arguments, given as a mapping or as JSON text, with control over one call.

        `task_id`: another id than a new one. `countdown`: seconds, or a timedelta, before it may
        run; `eta`: from when on; `expires`: from when on no more. These two are Unix seconds, or a
        datetime, without a zone local. `priority`: -9 to 9, 9 first. `headers`: a mapping, which
        the run sees. `function_timeout`, `soft_time_limit`: seconds, instead of the task's; 0: as
        the task has them. `priority_control_config`: an object of old code. Raises as `push` does.
        """
        if priority_control_config:
            control = {**priority_control_config.control(), **control}
        return self._sent((), arguments_of(message), control)

    pub = publish

    def send(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], **control: Unpack[Control]
    ) -> AsyncResult[V]:
        """Publish a call with the control that `publish` has. Raises as `push` does."""
        return self._sent(args, kwargs, control)

    def _sent(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], control: Control
    ) -> AsyncResult[V]:
        publisher, replies, write = self._services()
        outgoing = call_of(write, args, kwargs, now := moment(), **control)
        if replies:
            replies.expect((outgoing.id,), now)
        publisher.publish((outgoing,))
        return AsyncResult(outgoing.id, replies, self._self_queue, *self._self_told)

    @signed
    def push_in(self, transaction: object, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Publish a call in a transaction of the caller's; return the message's id.

        `transaction` is an SQLAlchemy Session or Connection to the queue's database: the message
        is committed or rolled back with it, and `Engine.result` finds nothing before. Inside a run
        it is no part of that: it is published whether the run has lost its own message or not.

        Raises:
            ArgumentError: the arguments do not fit, or `transaction` is none.
            ConfigurationError: the queue is not in that database, or nothing is rolled back there.
            PublishError, Unavailable: it is too large; the queue's tables could not be made.
        """
        return store_in(self, transaction, args, kwargs)

    @signed
    async def apush_in(self, transaction: object, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """As `push_in`, in an AsyncSession or AsyncConnection."""
        return await astore_in(self, transaction, args, kwargs)

    def publish_in(self, transaction: object, message: _Named, **control: Unpack[Control]) -> str:
        """As `push_in`, of what `publish` takes, with control over the call."""
        return store_in(self, transaction, (), arguments_of(message), **control)

    async def apublish_in(
        self, transaction: object, message: _Named, **control: Unpack[Control]
    ) -> str:
        """As `publish_in`, in an AsyncSession or AsyncConnection."""
        return await astore_in(self, transaction, (), arguments_of(message), **control)

    def push_many(self, calls: _Calls) -> Results[V]:
        """Publish many calls, each a tuple of positional or a mapping of named arguments.

        They are sent 500 at a time; on an error the groups before it are stored. Raises as `push`
        does; which call does not fit is told by its place, from 0.
        """
        publisher, replies, write = self._services()
        ids: list[str] = []
        some = iter(calls)
        while batch := calls_of(write, islice(some, GROUP), now := moment(), len(ids)):
            if replies:
                replies.expect([outgoing.id for outgoing in batch], now)
            publisher.publish(batch)
            ids += [outgoing.id for outgoing in batch]
        return Results(ids, replies, self._self_queue, *self._self_told)

    def push_group(
        self, calls: _Calls, then: Task[..., Any, W], *, on_failure: Task[..., Any] | None = None
    ) -> AsyncResult[W]:
        """Publish calls, as `push_many` takes them, and once all have ended one of `then`.

        It gets the list of what they returned, in order; the result is its own. If some failed,
        `on_failure` gets what they told; without it `then` is a dead letter. Raises as `push` does.

        Raises:
            ConfigurationError: this task does not join groups, or `then` is of another broker.
        """
        other = None if on_failure is None else services_of(on_failure)
        services = self._services(), services_of(then), other
        id, replies = push_calls(self._self_engine, self.options, list(calls), *services)
        return AsyncResult(id, replies, then._self_queue, *then._self_told)

    def grouping(self) -> Grouping:
        """Return what opens and grows groups of this task's messages, for a layer on top."""
        return grouping_of(self._self_engine, self._self_options)

    def consume(self) -> ConsumerHandle:
        """Start consuming the task's queue in the background.

        Does not block, and several tasks may be started one after the other. A script that ends
        here stays until its consumers are stopped; `consume().join()` says so in code. With
        `schedule_tasks_on_main_thread` it blocks until the consumer is stopped, as `Engine.run`.
        """
        here = self._self_options.schedule_tasks_on_main_thread
        handle = self._self_engine.consume(self, lend=here)
        if here:
            run(self._self_engine, [handle], GRACE)
        return handle

    start = start_consuming_message = consume

    def multi_process_consume(self, process_num: int = 1) -> Supervisor:
        """Consume in `process_num` processes, supervised, each with the task's own concurrency."""
        from .supervisor import run_consumer_with_multi_process

        return run_consumer_with_multi_process(self, process_num)

    def size(self) -> QueueSize:
        """Count the messages waiting, delayed, leased and dead, exactly."""
        return self._broker().size(self.queue)

    def get_message_count(self) -> int:
        """Count the messages that wait, delayed ones included."""
        return sum(count for count in self.size()[:2] if count > 0)

    def clear(self, include: Iterable[str] = ("waiting", "delayed")) -> int:
        """Delete the messages of these parts (waiting, delayed, leased, dead); return how many.

        Raises:
            ConfigurationError: there is no such part.
        """
        names = [include] if isinstance(include, str) else list(include)
        if unknown := [name for name in names if name not in _PARTS]:
            raise ConfigurationError(
                f"a queue has no part {unknown[0]!r}; give some of {', '.join(_PARTS)}"
            )
        parts = reduce(operator.or_, [_PARTS[name] for name in names], Part(0))
        return self._broker().purge(self.queue, parts)

    clear_queue = clear

    def dead_letters(self, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        """Return messages that could not be handled, the newest first, with their reasons."""
        return self._broker().dead_letters(self.queue, limit, offset)

    def replay(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters (all, without ids) back in line; return how many."""
        broker = self._broker()
        again = replays(self._self_engine.codecs)
        return broker.replay(self.queue, None if ids is None else list(ids), again)

    def join(self, timeout: float | timedelta | None = None) -> bool:
        """Block until nothing waits, is delayed or runs, anywhere; False after `timeout` seconds.

        Asks the broker for its exact counts, at growing intervals of at most 50 ms. What a broker
        without leases, or without SIZE_LEASED, has handed to other processes is not seen.
        """
        patience = patience_of(timeout)
        deadline = None if patience is None else time.monotonic() + patience
        pause, never = 0.002, threading.Event()
        at_rest = self._self_engine.at_rest
        while (rest := at_rest(self)) is None or self._holds() or at_rest(self) != rest:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            never.wait(pause)
            pause = min(0.05, pause * 1.5)
        return True

    def _holds(self) -> bool:
        return any(count > 0 for count in self.size()[:3])  # -1: it cannot be told
