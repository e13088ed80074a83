"""fsdf_engine: any function becomes a distributed task.

from fsdf_engine import task_deco

@task_deco("add")
def add(x: int, y: int) -> int:
    return x + y

add.push(1, y=2)
add.consume()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from . import errors
from .contracts import Broker, DeadMessage, Pool, QueueSize
from .core.context import current
from .core.retry import RetryPolicy
from .core.worker import ConsumerHandle, end_fast, tune
from .engine import Engine, default_engine
from .errors import *
from .options import Options
from .registry import BrokerEnum, ConcurrentModeEnum
from .result import AsyncResult
from .spelling import masked

__all__ = [
    "AsyncResult", "Broker", "BrokerEnum", "ConcurrentModeEnum", "ConsumerHandle", "DeadMessage",
    "Engine", "Options", "Pool", "QueueConsumer", "QueuePublisher", "QueueSize", "RetryPolicy",
    "ShrinkablePool", "StopSignals", "Task", "current", "default_engine", "end_fast",
    "get_consumer", "get_publisher", "masked", "patch_frame_config",
    "run_consumer_with_multi_process", "task_deco", "tune",
]  # fmt: skip
__all__ += errors.__all__

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .cli.signals import StopSignals
    from .config import Settings
    from .historic import QueueConsumer, QueuePublisher, get_consumer, get_publisher
    from .task import Task

P = ParamSpec("P")
R = TypeVar("R")


def task_deco(
    queue_name: str, **options: Unpack[Options]
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task of a queue.

    The options are those of `Options`; a wrong one is an error here, not later.

    Raises:
        ConfigurationError: an option is wrong, or the queue has a task of this name already.
    """
    from .options import resolve_options

    if callable(queue_name):
        raise ConfigurationError('give the queue a name: @task_deco("my_queue")')
    resolved = resolve_options(options)
    return lambda fn: default_engine().declare(fn, queue_name, resolved)


def patch_frame_config(**values: Unpack[Settings]) -> None:
    """Set configuration keys from code; stronger than the environment and configuration files.

    Raises:
        ConfigurationError: a key is unknown or a value is wrong.
    """
    default_engine().config.patch(values)


_LATER = {
    "QueueConsumer": "historic",
    "QueuePublisher": "historic",
    "ShrinkablePool": "pools.shrinkable",
    "StopSignals": "cli.signals",
    "Task": "task",
    "get_consumer": "historic",
    "get_publisher": "historic",
    "run_consumer_with_multi_process": "core.supervisor",
}


def __getattr__(name: str) -> Any:
    """What needs more modules is imported when it is used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATER[name]}", __name__), name)
