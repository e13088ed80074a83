"""A decorated function: calling it runs it here, `push` runs it elsewhere."""

from __future__ import annotations

import math
import operator
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
from typing_extensions import ParamSpec, TypedDict, Unpack

from .contracts import Broker, DeadMessage, Outgoing, Part, QueueSize
from .core.binding import Binding, Unnamed
from .core.context import current_job
from .core.ending import result_sink
from .core.publisher import Publisher, place_of
from .core.replies import Replies
from .core.run import TaskSpec, is_coroutine
from .core.worker import ConsumerHandle
from .errors import ArgumentError, ConfigurationError
from .message import Extra, derived_id, encode, new_id
from .options import TaskOptions
from .result import AsyncResult

if TYPE_CHECKING:
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
    """A function with a queue; otherwise as transparent as `wrapt` makes it."""

    def __init__(
        self,
        fn: Callable[P, R],
        queue: str,
        options: TaskOptions,
        engine: Engine,
        binding: Binding | Unnamed | None = None,
    ) -> None:
        super().__init__(fn)
        self._self_core = _Core(fn, queue, options, engine, binding or Binding(fn))

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
        return self._self_core.fn

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._self_core.queue

    @property
    def options(self) -> TaskOptions:
        """Its options, with their defaults."""
        return self._self_core.options

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

    def spec(self) -> TaskSpec:
        """Return what a plan is compiled from."""
        return self._self_core.spec()

    # ---------------------------------------------------------------- publishing

    def push(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Publish a call; returns once the broker has the message.

        Raises:
            ArgumentError: the arguments do not fit the function, or have no JSON form.
            PublishError: the broker did not, or perhaps not, store it.
            Unavailable: the broker cannot be reached; nothing was sent.
        """
        core = self._self_core
        outgoing = core.message(args, kwargs)
        core.publisher().publish((outgoing,))
        return core.result(outgoing.id)

    delay = push

    async def apush(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """As `push`, without blocking the loop."""
        core = self._self_core
        outgoing = core.message(args, kwargs)
        await core.publisher().apublish((outgoing,))
        return core.result(outgoing.id)

    def publish(
        self, message: Mapping[str, Any] | str | bytes, **control: Unpack[Control]
    ) -> AsyncResult:
        """Publish named arguments, given as a mapping or as JSON text, with control over one call.

        What may be given is in `Control`. Raises as `push` does.
        """
        return self.send((), _object(message), **control)

    pub = publish

    def send(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], **control: Unpack[Control]
    ) -> AsyncResult:
        """Publish a call with the control that `publish` has. Raises as `push` does."""
        core = self._self_core
        outgoing = core.controlled(args, kwargs, **control)
        core.publisher().publish((outgoing,))
        return core.result(outgoing.id)

    def push_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[AsyncResult]:
        """Publish many calls, each a tuple of positional or a mapping of named arguments.

        They are sent 500 at a time; on an error the groups before it are stored.
        """
        core = self._self_core
        publisher, replies = core.publisher(), core.replies()
        results: list[AsyncResult] = []
        batch: list[Outgoing] = []
        for call in calls:
            if isinstance(call, (tuple, list)):
                outgoing = core.message(call, _NO_NAMES)
            elif isinstance(call, Mapping):
                outgoing = core.message((), call)
            else:
                raise ArgumentError(f"push_many got {call!r}; give tuples or mappings of arguments")
            batch.append(outgoing)
            results.append(AsyncResult(outgoing.id, replies))
            if len(batch) == GROUP:
                publisher.publish(batch)
                batch = []
        if batch:
            publisher.publish(batch)
        return results

    # ---------------------------------------------------------------- consuming

    def consume(self) -> ConsumerHandle:
        """Start consuming the task's queue in the background.

        Does not block, and several tasks may be started one after the other. A script that ends
        here stays until its consumers are stopped; `consume().join()` says so in code.
        """
        return self._self_core.engine.consume(self)

    start = start_consuming_message = consume

    def multi_process_consume(self, process_num: int = 1) -> Supervisor:
        """Consume in `process_num` processes, supervised, each with the task's own concurrency."""
        from .core.supervisor import run_consumer_with_multi_process

        return run_consumer_with_multi_process(self, process_num)

    # ---------------------------------------------------------------- the queue

    def size(self) -> QueueSize:
        """Count the messages waiting, delayed, leased and dead, exactly."""
        return self._self_core.broker().size(self.queue)

    def get_message_count(self) -> int:
        """Count the messages that wait, delayed ones included."""
        size = self.size()
        return size.waiting + size.delayed

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
        return self._self_core.broker().purge(self.queue, parts)

    clear_queue = clear

    def dead_letters(self, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        """Return messages that could not be handled, the newest first, with their reasons."""
        return self._self_core.broker().dead_letters(self.queue, limit, offset)

    def replay(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters (all, without ids) back in line; return how many."""
        broker = self._self_core.broker()
        return broker.replay(self.queue, None if ids is None else list(ids))

    def join(self, timeout: float | None = None) -> bool:
        """Block until nothing waits, is delayed or runs, anywhere; False after `timeout` seconds.

        Asks the broker for its exact counts, at growing intervals of at most 50 ms. What a broker
        without leases has handed to other processes is not seen.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, never = 0.002, threading.Event()
        at_rest = self._self_core.engine.at_rest
        while (rest := at_rest(self)) is None or any(self.size()[:3]) or at_rest(self) != rest:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            never.wait(pause)
            pause = min(0.05, pause * 1.5)
        return True


class _Core:
    """The state of a task; apart from it, because the proxy passes attributes on."""

    def __init__(
        self,
        fn: Callable[..., Any],
        queue: str,
        options: TaskOptions,
        engine: Engine,
        binding: Binding | Unnamed,
    ) -> None:
        if not callable(fn):
            raise ConfigurationError(f"{fn!r} is no function; decorate one")
        self.fn, self.queue, self.options, self.engine = fn, queue, options, engine
        self.binding = binding
        self._epoch: object = None  # of the engine, when what follows was found
        self._publisher: Publisher
        self._replies: Replies | None

    def spec(self) -> TaskSpec:
        o = self.options
        expires = o.result_expires or self.engine.config.number("RESULT_EXPIRES")
        return TaskSpec(
            self.fn,
            self.queue,
            self.binding.bind,
            o.name,
            o.retry_policy(),
            o.function_timeout,
            o.timeout_kill == "raise",
            o.ack == "early",
            o.keep_failed,
            place_of(self.broker()),
            o.msg_expire_seconds,
            (result_sink(expires),) if o.is_using_rpc_mode else (),
        )

    def broker(self) -> Broker:
        return self.engine.broker_of(self.options)

    def publisher(self) -> Publisher:
        if self._epoch is not self.engine.epoch:
            self._look_up()
        return self._publisher

    def replies(self) -> Replies | None:
        """Where this task's results arrive; None where results are off."""
        if self._epoch is not self.engine.epoch:
            self._look_up()
        return self._replies

    def _look_up(self) -> None:
        """Find the services once: a look-up reads the configuration."""
        epoch = self.engine.epoch
        self._publisher = self.engine.publisher(self.broker())
        on = self.options.is_using_rpc_mode
        self._replies = self.engine.replies(self.options) if on else None
        self._epoch = epoch

    def message(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        extra: Extra | None = None,
        task_id: str | None = None,
    ) -> Outgoing:
        """Bind and encode one call."""
        data, leading = self.binding.name(args, kwargs)
        id, options = task_id or _id(), self.options
        control: Extra = {"task_id": id, "publish_time": round(time.time(), 4)}
        if options.name:
            control["task"] = options.name
        if leading:
            control["args"] = leading
        if replies := self.replies():
            control["reply"] = replies.address
            replies.expect((id,))
        if extra:
            control.update(extra)
        return Outgoing(self.queue, id, encode(data, control), priority=options.priority)

    def controlled(
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
    ) -> Outgoing:
        """As `message`, with control over the call."""
        _check_times(countdown=countdown, eta=eta, expires=expires)
        if priority not in (None, *range(10)):
            raise ArgumentError(f"priority={priority!r} is no whole number from 0 to 9")
        extra: Extra = {"headers": dict(headers)} if headers else {}
        if expires:
            extra["expires"] = expires
        outgoing = self.message(args, kwargs, extra, task_id)
        outgoing.delay, outgoing.not_before = countdown, eta
        outgoing.priority = self.options.priority if priority is None else priority
        return outgoing

    def result(self, id: str) -> AsyncResult:
        return AsyncResult(id, self.replies())


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
