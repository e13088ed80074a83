"""fsdf_engine: any function becomes a distributed task.

from fsdf_engine import task_deco

@task_deco("add")
def add(x: int, y: int) -> int:
    return x + y

add.push(1, y=2)
add.consume()
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from . import errors, historic
from .contracts import Broker, DeadMessage, Pool, QueueSize
from .core.context import current
from .core.retry import RetryPolicy
from .core.worker import ConsumerHandle
from .engine import Engine, default_engine
from .errors import *
from .hooks import at_child
from .options import Options
from .registry import BrokerEnum, ConcurrentModeEnum
from .result import AsyncResult
from .spelling import did_you_mean, masked

__all__ = [
    "AsyncResult", "Broker", "BrokerEnum", "ConcurrentModeEnum", "ConsumerHandle", "DeadMessage",
    "Engine", "Options", "Pool", "QueueConsumer", "QueuePublisher", "QueueSize", "RetryPolicy",
    "ShrinkablePool", "StopSignals", "Task", "at_child", "current", "default_engine",
    "did_you_mean", "end_fast", "get_consumer", "get_publisher", "join_all", "masked",
    "patch_frame_config", "patch_print", "run_consumer_with_multi_process", "run_coroutine",
    "start_zygote", "task_deco", "tune",
]  # fmt: skip
__all__ += errors.__all__

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .config import Settings
    from .foreground import end_fast, join_all, tune
    from .historic.classes import *
    from .historic.clients import *
    from .historic.control import *
    from .historic.options import (
        FunctionResultStatusPersistanceConfig as FunctionResultStatusPersistanceConfig,
    )
    from .historic.processes import *
    from .historic.scheduler import *
    from .historic.waiting import *
    from .log import patch_print
    from .native_loop import run_coroutine
    from .stop_signals import StopSignals
    from .task import Task

    P = ParamSpec("P")
    R = TypeVar("R")
    V = TypeVar("V")

    class Decorator(Protocol):
        """Makes a function a task; `async def` ones have results of what they are awaited to."""

        @overload
        def __call__(
            self, fn: Callable[P, Coroutine[Any, Any, V]], /
        ) -> Task[P, Coroutine[Any, Any, V], V]: ...
        @overload
        def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


def task_deco(queue_name: str, **options: Unpack[Options]) -> Decorator:
    """Make a function a task of a queue: call it to run it here, `push` it to run it elsewhere.

    Options are checked here, not later; each with its default, durations in seconds:

    - `name=""` tells the tasks of one queue apart; `broker_kind`, `broker_url` (as configured):
      where messages wait; `priority=0`, of -9 to 9, the highest first; `lease=15`: a dead worker's
      messages are kept from others so long; `prefetch=500`: the most held ahead of the running
      ones
    - `concurrent_mode` (threads; asyncio for `async def`), `concurrent_num=50` (500 with `qps`):
      how, and how many at once; `specify_concurrent_pool`: a pool of the engine, a
      `ShrinkablePool`, any `Executor` of threads; `specify_async_loop`: your own running loop
    - `qps=0`: starts a second in each process, evenly, 0 is without limit;
      `msg_expire_seconds=0`: older messages are not run; `function_timeout=0`: the longest an
      attempt may take; `timeout_kill="raise"` in a thread that passes it, or "never";
      `soft_time_limit=0`: when `SoftTimeLimit` is raised in an attempt, which may catch it
    - `max_retry_times=3` after the first attempt; `retry_backoff=0` before the first retry,
      doubled each time up to `retry_backoff_max=600`, `retry_jitter=True` at random;
      `retry_on=Exception`, `never_retry_on=()`: classes or tuples; `specify_retry_policy` instead
      of these six; `keep_failed=True` as dead letters; `ack="late"`, or "early", before the run
    - `cancellable=False`, True: what has not started can be cancelled, and ends as revoked
    - `is_using_rpc_mode=False`: keep results, in `result_store`, `result_url` (with the broker),
      for `result_expires` (a day); `joins_groups=False`: its messages may be members of groups
    - PROCESSES: `max_tasks_per_child=0` runs, `max_memory_per_child=0` bytes after which a child
      is replaced; `process_start_method=""`: in worker commands a zygote forks them, else "spawn";
      or that, "forkserver" or "fork"
    - Logs: `log_level` (as configured), `logger_prefix=""`, `create_logger_file=False`,
      `is_print_detail_exception=True`: tracebacks, `is_show_message_get_from_broker=False`: bodies
    - As old code wants it: `is_consuming_function_use_multi_params=True`, False: the function takes
      the message as one dict; `schedule_tasks_on_main_thread=False`, True: `consume()` blocks

    Raises:
        ConfigurationError: an option or the function is wrong, or the name is taken on this queue.
    """
    from .options import resolve_options

    if callable(queue_name):
        raise ConfigurationError('give the queue a name: @task_deco("my_queue")')
    resolved = resolve_options(options)
    return cast("Decorator", lambda fn: default_engine().declare(fn, queue_name, resolved))


def patch_frame_config(**values: Unpack[Settings]) -> None:
    """Set configuration keys from code; stronger than the environment and configuration files.

    Raises:
        ConfigurationError: a key is unknown or a value is wrong.
    """
    default_engine().config.patch(values)


_LATER = {
    "ShrinkablePool": "shrinkable",
    "StopSignals": "stop_signals",
    "end_fast": "foreground",
    "join_all": "foreground",
    "tune": "foreground",
    "Task": "task",
    "patch_print": "log",
    "run_consumer_with_multi_process": "supervisor",
    "run_coroutine": "native_loop",
    "start_zygote": "zygote",
}


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *historic.HOMES})


def __getattr__(name: str) -> Any:
    """What needs more modules is imported when it is used; so is what old code asks for."""
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("fsdf")
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    try:
        return historic.find(name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
