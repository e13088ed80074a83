"""The forms without a decorator: `get_consumer` and `get_publisher`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .core.worker import ConsumerHandle
from .engine import Engine, default_engine
from .errors import ConfigurationError
from .options import Options
from .task import Task

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["QueueConsumer", "QueuePublisher", "get_consumer", "get_publisher"]


class QueuePublisher:
    """Publishes to a queue without its function, so arguments are given by name."""

    def __init__(self, engine: Engine, queue: str, options: Options) -> None:
        self.queue, self._engine = queue, engine
        self._task = engine.remote(queue, **options)
        self.clear, self.get_message_count = self._task.clear, self._task.get_message_count

    def publish(self, message: Mapping[str, Any] | str | bytes) -> str:
        """Publish one message; return its id once the broker has it."""
        return self._task.publish(message).task_id

    def push(self, **arguments: Any) -> str:
        """Publish named arguments; return the message's id."""
        return self.publish(arguments)

    def close(self) -> None:
        """Free the broker's connections; the next call opens them again."""
        self._engine.broker_of(self._task.options).close()

    def __enter__(self) -> QueuePublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class QueueConsumer:
    """A queue and the function that consumes it."""

    def __init__(self, task: Task[..., Any], publisher: QueuePublisher) -> None:
        self.task, self.publisher_of_same_queue = task, publisher

    def start_consuming_message(self) -> ConsumerHandle:
        """Start consuming in the background."""
        return self.task.consume()

    consume = start = start_consuming_message


def get_consumer(
    queue_name: str, *, consuming_function: Callable[..., Any], **options: Unpack[Options]
) -> QueueConsumer:
    """Return a consumer of the queue; the options are those of `task_deco`.

    Raises:
        ConfigurationError: as for `task_deco`.
    """
    if isinstance(consuming_function, Task):
        raise ConfigurationError(f"{consuming_function!r} is a task already; call its consume()")
    task = default_engine().task(consuming_function, queue_name, **options)
    return QueueConsumer(task, get_publisher(queue_name, **options))


def get_publisher(queue_name: str, **options: Unpack[Options]) -> QueuePublisher:
    """Return a publisher of the queue; needs no function.

    Raises:
        ConfigurationError: an option is wrong.
    """
    return QueuePublisher(default_engine(), queue_name, options)
