"""The forms without a decorator: `get_consumer`, `get_publisher`, and the classes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..call import Control
from ..contracts import QueueSize
from ..core.worker import ConsumerHandle
from ..engine import default_engine
from ..errors import ConfigurationError
from ..options import Options, resolve_options
from ..registry import BrokerEnum
from ..result import AsyncResult
from ..task import Task
from . import find
from .attributes import clear_filter_tasks, init_params

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..supervisor import Supervisor
    from .control import PriorityConsumingControlConfig

__all__ = [
    "AbstractConsumer", "AbstractPublisher", "QueueConsumer", "QueuePublisher", "get_consumer",
    "get_publisher",
]  # fmt: skip


class QueuePublisher:
    """Publishes to a queue without its function, so arguments are given by name.

    With `consuming_function` they are checked against its parameters, and may be positional.
    `clear_queue_within_init` empties the queue first.
    """

    broker_kind: ClassVar[BrokerEnum | None] = None  # what a subclass is for

    def __init__(
        self,
        queue_name: str,
        *,
        consuming_function: Callable[..., Any] | None = None,
        clear_queue_within_init: bool = False,
        **options: Unpack[Options],
    ) -> None:
        engine, given = default_engine(), _for(self.broker_kind, _publishers(options))
        if consuming_function is None:
            task = engine.remote(queue_name, **given)
        else:
            task = Task(_function(consuming_function), queue_name, resolve_options(given), engine)
        self._serve(task)
        if clear_queue_within_init:
            self.clear()

    @classmethod
    def of(cls, task: Task[..., Any]) -> QueuePublisher:
        """Return the publisher of a task's queue."""
        publisher = cls.__new__(cls)
        publisher._serve(task)
        return publisher

    def _serve(self, task: Task[..., Any]) -> None:
        self._task, self.queue_name, self.queue = task, task.queue, task.queue

    def publish(
        self,
        message: Mapping[str, Any] | str | bytes,
        *,
        priority_control_config: PriorityConsumingControlConfig | None = None,
        **control: Unpack[Control],
    ) -> AsyncResult:
        """Publish one message as `Task.publish` does; returns once the broker has it."""
        return self._task.publish(
            message, priority_control_config=priority_control_config, **control
        )

    def push(self, /, *args: Any, **arguments: Any) -> AsyncResult:
        """Publish a call; without the function all arguments must be named."""
        return self._task.send(args, arguments)

    def push_many(
        self, calls: Iterable[tuple[Any, ...] | list[Any] | Mapping[str, Any]]
    ) -> Sequence[AsyncResult]:
        """Publish many calls, as `Task.push_many` does."""
        return self._task.push_many(calls)

    delay = push
    pub = apply_async = publish

    def size(self) -> QueueSize:
        """Count the messages waiting, delayed, leased and dead, exactly."""
        return self._task.size()

    def get_message_count(self) -> int:
        """Count the messages that wait, delayed ones included."""
        return self._task.get_message_count()

    def clear(self, include: Iterable[str] = ("waiting", "delayed")) -> int:
        """Delete the messages of these parts, as `Task.clear` does; return how many."""
        return self._task.clear(include)

    def close(self) -> None:
        """Free the broker's connections; the next call opens them again."""
        default_engine().broker_of(self._task.options).close()

    def __enter__(self) -> QueuePublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<publisher of queue {self.queue!r}>"


class QueueConsumer:
    """A queue and the function that consumes it; the options are those of `task_deco`.

    Raises:
        ConfigurationError: as for `task_deco`.
    """

    broker_kind: ClassVar[BrokerEnum | None] = None  # what a subclass is for

    def __init__(
        self,
        queue_name: str,
        *,
        consuming_function: Callable[..., Any],
        **options: Unpack[Options],
    ) -> None:
        given = _for(self.broker_kind, options)
        task = consuming_function
        if not (isinstance(task, Task) and task.queue == queue_name and _same(task, given)):
            task = default_engine().task(_function(consuming_function), queue_name, **given)
        self._serve(task, consuming_function)

    @classmethod
    def of(cls, task: Task[..., Any]) -> QueueConsumer:
        """Return the consumer of a task."""
        consumer = cls.__new__(cls)
        consumer._serve(task, task)
        return consumer

    def _serve(self, task: Task[..., Any], function: Callable[..., Any]) -> None:
        self.task, self.queue_name, self.consuming_function = task, task.queue, function
        self.publisher_of_same_queue = QueuePublisher.of(task)

    @property
    def init_params(self) -> dict[str, Any]:
        """What it was made of, as keyword arguments of `get_consumer`."""
        return {**init_params(self.task), "consuming_function": self.consuming_function}

    def start_consuming_message(self) -> ConsumerHandle:
        """Start consuming in the background, as `Task.consume` does."""
        return self.task.consume()

    consume = start = start_consuming_message

    def multi_process_consume(self, process_num: int = 1) -> Supervisor:
        """Consume in `process_num` supervised processes. Does not block."""
        run = find("run_many_consumer_with_multi_process")
        return run([self.init_params], process_num)  # type: ignore[no-any-return]

    def wait_for_possible_has_finish_all_tasks(self, minutes: float = 3) -> bool:
        """Block until nothing waits, is delayed or runs, which is exact, whatever `minutes` is."""
        return self.task.join()

    def clear_filter_tasks(self) -> None:
        """Raise NotYetSupported: filtering by arguments comes in a later version."""
        clear_filter_tasks(self.task)

    def __repr__(self) -> str:
        return f"<consumer of queue {self.queue_name!r}>"


AbstractConsumer = QueueConsumer
AbstractPublisher = QueuePublisher


def get_consumer(
    queue_name: str, *, consuming_function: Callable[..., Any], **options: Unpack[Options]
) -> QueueConsumer:
    """Return a consumer of the queue; the options are those of `task_deco`.

    Raises:
        ConfigurationError: as for `task_deco`.
    """
    return QueueConsumer(queue_name, consuming_function=consuming_function, **options)


def get_publisher(
    queue_name: str,
    *,
    consuming_function: Callable[..., Any] | None = None,
    clear_queue_within_init: bool = False,
    **options: Unpack[Options],
) -> QueuePublisher:
    """Return a publisher of the queue; needs no function.

    With `consuming_function` its arguments are checked, and may be positional;
    `clear_queue_within_init` empties the queue first.

    Raises:
        ConfigurationError: an option is wrong.
    """
    return QueuePublisher(
        queue_name,
        consuming_function=consuming_function,
        clear_queue_within_init=clear_queue_within_init,
        **options,
    )


def _function(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn.fn if isinstance(fn, Task) else fn


def _same(task: Task[..., Any], given: Options) -> bool:
    """Say whether these options say nothing else than the task's own."""
    return not given or task.options == resolve_options(given)


def _for(kind: BrokerEnum | None, options: Options) -> Options:
    """Return the options with the broker that a class is for."""
    if kind is None:
        return options
    if options.get("broker_kind") not in (None, kind):
        raise ConfigurationError(
            f"broker_kind={options['broker_kind']!r}: this class is for {kind.name};"
            " leave it out, or use get_consumer() and get_publisher()"
        )
    return {**options, "broker_kind": kind}


# What publishers of the old framework called these.
_PUBLISHERS = {"log_level_int": "log_level", "is_add_file_handler": "create_logger_file"}


def _publishers(options: Options) -> Options:
    given = {_PUBLISHERS.get(name, name): value for name, value in options.items()}
    given.pop("is_add_publish_time", None)  # it is always there
    return cast("Options", given)
