"""The forms without a decorator: `get_consumer` and `get_publisher`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import Unpack

from .contracts import Outgoing, Part
from .core.worker import ConsumerHandle
from .engine import Engine, default_engine
from .errors import ConfigurationError
from .message import encode, new_id
from .options import Options, resolve_options
from .task import Task, _object

__all__ = ["QueueConsumer", "QueuePublisher", "get_consumer", "get_publisher"]


class QueuePublisher:
    """Publishes to a queue without its function, so arguments are given by name."""

    def __init__(self, engine: Engine, queue: str, options: Options) -> None:
        self.queue, self._engine = queue, engine
        self._options = resolve_options(options)

    def publish(self, message: Mapping[str, Any] | str | bytes) -> str:
        """Publish one message; return its id once the broker has it."""
        id = new_id()
        extra = {"task_id": id}
        if self._options.name:
            extra["task"] = self._options.name
        body = encode(dict(_object(message)), extra)
        broker = self._engine.broker_of(self._options)
        outgoing = Outgoing(self.queue, id, body, priority=self._options.priority)
        self._engine.publisher(broker).publish((outgoing,))
        return id

    def push(self, **arguments: Any) -> str:
        """Publish named arguments; return the message's id."""
        return self.publish(arguments)

    def clear(self) -> int:
        """Delete what waits, delayed messages included; return how many."""
        parts = Part.WAITING | Part.DELAYED
        return self._engine.broker_of(self._options).purge(self.queue, parts)

    def get_message_count(self) -> int:
        """Count the messages that wait, delayed ones included."""
        size = self._engine.broker_of(self._options).size(self.queue)
        return size.waiting + size.delayed

    def close(self) -> None:
        """Free the broker's connections; the next call opens them again."""
        self._engine.broker_of(self._options).close()

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
