"""A decorated function: calling it runs it here, `push` runs it elsewhere."""

from __future__ import annotations

import math
import operator
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar

import orjson

from .contracts import Broker, DeadMessage, Outgoing, Part, Plan, QueueSize
from .core.binding import Binding, Unnamed
from .core.context import current_job
from .core.ending import result_sink
from .core.publisher import Publisher, place_of
from .core.replies import Replies
from .core.run import Watch, compile_plan, is_coroutine
from .core.worker import ConsumerHandle
from .errors import ArgumentError, ConfigurationError
from .message import Extra, derived_id, encode, new_id
from .options import TaskOptions
from .result import AsyncResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .core.supervisor import Supervisor
    from .engine import Engine

    class _Proxy:
        """What the type checker sees of wrapt's proxy."""

        def __init__(self, wrapped: object) -> None: ...
else:
    from wrapt import ObjectProxy as _Proxy

__all__ = ["Task"]
P = ParamSpec("P")
R = TypeVar("R")
GROUP = 500  # messages a flush of push_many takes
_NO_NAMES: Mapping[str, Any] = {}
_PARTS = {part.name.lower(): part for part in Part if part.name}


class Control(TypedDict, total=False):
    """What may be decided for one call.

    `countdown` seconds from now, or `eta` (Unix seconds), the run may start; `expires` (Unix
    seconds) it may no more. `priority` is 0 to 9, 9 first.
    """

    task_id: str | None
    countdown: float
    eta: float
    expires: float
    priority: int | None
    headers: Mapping[str, Any] | None


class Task(_Proxy, Generic[P, R]):
    """A function with a queue; otherwise as transparent as `wrapt` makes it.

    The proxy keeps attributes called `_self_...` to itself and passes all others on.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        queue: str,
        options: TaskOptions,
        engine: Engine,
        binding: Binding | Unnamed | None = None,
    ) -> None:
        if not callable(fn):
            raise ConfigurationError(f"{fn!r} is no function; decorate one")
        super().__init__(fn)
        self._self_fn, self._self_queue, self._self_options = fn, queue, options
        self._self_engine, self._self_binding = engine, binding or Binding(fn)
        self._self_epoch: object = None  # of the engine, when its services were looked up
        self._self_services: tuple[Publisher, Replies | None]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A task in a class is called as a method; push it through the class."""
        return self if instance is None else self.fn.__get__(instance, owner)

    def __reduce__(self) -> str:
        return str(self.fn.__qualname__)

    def __reduce_ex__(self, protocol: Any) -> str:
        return self.__reduce__()

    def __repr__(self) -> str:
        return f"<task {self.fn.__qualname__} on queue {self.queue!r}>"

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
    def is_coroutine(self) -> bool:
        """Say whether the function is `async def`."""
        return is_coroutine(self.fn)

    def mode(self) -> int | str:
        """Return its concurrent mode: as declared, else asyncio for `async def`, else threads."""
        mode = self.options.concurrent_mode
        if mode is None:
            return "asyncio" if self.is_coroutine else "threads"
        return mode

    def plan(self, watch: Watch | None = None) -> Plan:
        """Compile how a message of this task is run; `watch` as for `compile_plan`."""
        o, engine = self.options, self._self_engine
        expires = o.result_expires or engine.config.number("RESULT_EXPIRES")
        plan = Plan(
            o.name,
            self.queue,
            None,
            None,
            self._self_binding.bind,
            (result_sink(expires),) if o.is_using_rpc_mode else (),
            o.function_timeout,
            o.timeout_kill == "raise",
            o.keep_failed,
            place_of(self._broker()),
            o.msg_expire_seconds,
            o.retry_policy(),
            o.ack == "early",
            o.priority,
        )
        return compile_plan(plan, self.fn, watch)

    def _broker(self) -> Broker:
        return self._self_engine.broker_of(self.options)

    def _services(self) -> tuple[Publisher, Replies | None]:
        """Return where messages go, and where results arrive (None: they are off).

        Found once: a look-up reads the configuration.
        """
        engine = self._self_engine
        if self._self_epoch is not (epoch := engine.epoch):
            replies = engine.replies(self.options) if self.options.is_using_rpc_mode else None
            self._self_services = engine.publisher(self._broker()), replies
            self._self_epoch = epoch
        return self._self_services

    # ---------------------------------------------------------------- publishing

    def push(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Publish a call; returns once the broker has the message.

        Raises:
            ArgumentError: the arguments do not fit the function, or have no JSON form.
            PublishError: the broker did not, or perhaps not, store it.
            Unavailable: the broker cannot be reached; nothing was sent.
        """
        publisher, replies = self._services()
        outgoing = self._message(replies, args, kwargs)
        publisher.publish((outgoing,))
        return AsyncResult(outgoing.id, replies, self._self_queue)

    delay = push

    async def apush(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """As `push`, without blocking the loop."""
        publisher, replies = self._services()
        outgoing = self._message(replies, args, kwargs)
        await publisher.apublish((outgoing,))
        return AsyncResult(outgoing.id, replies, self._self_queue)

    def publish(
        self, message: Mapping[str, Any] | str | bytes, **control: Unpack[Control]
    ) -> AsyncResult:
        """Publish named arguments, given as a mapping or as JSON text, with control over one call.

        What may be given is in `Control`. Raises as `push` does.
        """
        return self.send((), _object(message), **control)

    pub = publish

    def send(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        task_id: str | None = None,
        countdown: float = 0.0,
        eta: float = 0.0,
        expires: float = 0.0,
        priority: int | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> AsyncResult:
        """Publish a call with the control that `publish` has. Raises as `push` does."""
        _check_times(countdown=countdown, eta=eta, expires=expires)
        if task_id is not None and not (isinstance(task_id, str) and task_id):
            raise ArgumentError(f"task_id={task_id!r} is no text")
        if priority not in (None, *range(10)):
            raise ArgumentError(f"priority={priority!r} is no whole number from 0 to 9")
        extra: Extra = {"headers": dict(headers)} if headers else {}
        if expires:
            extra["expires"] = expires
        publisher, replies = self._services()
        outgoing = self._message(replies, args, kwargs, extra, task_id)
        outgoing.delay, outgoing.not_before = countdown, eta
        if priority is not None:
            outgoing.priority = priority
        publisher.publish((outgoing,))
        return AsyncResult(outgoing.id, replies, self._self_queue)

    def push_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[AsyncResult]:
        """Publish many calls, each a tuple of positional or a mapping of named arguments.

        They are sent 500 at a time; on an error the groups before it are stored.
        """
        publisher, replies = self._services()
        results: list[AsyncResult] = []
        batch: list[Outgoing] = []
        for call in calls:
            if isinstance(call, (tuple, list)):
                outgoing = self._message(replies, call, _NO_NAMES)
            elif isinstance(call, Mapping):
                outgoing = self._message(replies, (), call)
            else:
                raise ArgumentError(f"push_many got {call!r}; give tuples or mappings of arguments")
            batch.append(outgoing)
            results.append(AsyncResult(outgoing.id, replies, self._self_queue))
            if len(batch) == GROUP:
                publisher.publish(batch)
                batch = []
        if batch:
            publisher.publish(batch)
        return results

    def _message(
        self,
        replies: Replies | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        extra: Extra | None = None,
        task_id: str | None = None,
    ) -> Outgoing:
        """Bind and encode one call."""
        data, leading = self._self_binding.name(args, kwargs)
        id, options = task_id or _id(), self._self_options
        control: Extra = {"task_id": id, "publish_time": round(time.time(), 4)}
        if options.name:
            control["task"] = options.name
        if leading:
            control["args"] = leading
        if replies:
            control["reply"] = replies.address
            replies.expect((id,))
        if extra:
            control.update(extra)
        return Outgoing(self._self_queue, id, encode(data, control), priority=options.priority)

    # ---------------------------------------------------------------- consuming

    def consume(self) -> ConsumerHandle:
        """Start consuming the task's queue in the background.

        Does not block, and several tasks may be started one after the other. A script that ends
        here stays until its consumers are stopped; `consume().join()` says so in code.
        """
        return self._self_engine.consume(self)

    start = start_consuming_message = consume

    def multi_process_consume(self, process_num: int = 1) -> Supervisor:
        """Consume in `process_num` processes, supervised, each with the task's own concurrency."""
        from .core.supervisor import run_consumer_with_multi_process

        return run_consumer_with_multi_process(self, process_num)

    # ---------------------------------------------------------------- the queue

    def size(self) -> QueueSize:
        """Count the messages waiting, delayed, leased and dead, exactly."""
        return self._broker().size(self.queue)

    def get_message_count(self) -> int:
        """Count the messages that wait, delayed ones included."""
        return sum(self.size()[:2])

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
        return broker.replay(self.queue, None if ids is None else list(ids))

    def join(self, timeout: float | None = None) -> bool:
        """Block until nothing waits, is delayed or runs, anywhere; False after `timeout` seconds.

        Asks the broker for its exact counts, at growing intervals of at most 50 ms. What a broker
        without leases has handed to other processes is not seen.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, never = 0.002, threading.Event()
        at_rest = self._self_engine.at_rest
        while (rest := at_rest(self)) is None or any(self.size()[:3]) or at_rest(self) != rest:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            never.wait(pause)
            pause = min(0.05, pause * 1.5)
        return True


def _id() -> str:
    """A run's pushes have ids that a repeat of the run gives again."""
    job = current_job.get(None)
    if job is None:
        return new_id()
    job.pushes += 1
    return derived_id(job.id, job.attempt, job.pushes)


def _check_times(**times: float) -> None:
    for name, value in times.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise ArgumentError(f"{name}={value!r} is no number of seconds of 0 or more")


def _object(message: Mapping[str, Any] | str | bytes) -> Mapping[str, Any]:
    if isinstance(message, (str, bytes)):
        try:
            message = orjson.loads(message)
        except ValueError as error:
            raise ArgumentError(f"the message is not JSON: {error}") from None
    if not isinstance(message, Mapping):
        raise ArgumentError(f"the message {message!r} is no object of named arguments")
    return message
