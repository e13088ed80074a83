"""The options of a task: what may be given, and what it means."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .contracts import Pool
from .core.retry import RetryPolicy
from .errors import LARGEST, ConfigurationError
from .historic.options import HISTORIC, NOT_YET, modern
from .registry import BrokerEnum, ConcurrentModeEnum, stores
from .spelling import did_you_mean, masked

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Options", "TaskOptions", "resolve_options"]


class Options(TypedDict, total=False):
    """Options of `task_deco`, `get_consumer` and `get_publisher`; durations in seconds.

    What is said last about each is its default.
    """

    name: str
    """Tells the tasks of one queue apart; travels in the message."""
    broker_kind: BrokerEnum | int | str
    """Where messages wait: a member of `BrokerEnum`, its number, or a name. As configured."""
    broker_url: str
    """Another server or file than the configured one."""
    result_store: str
    """Where results are kept: `memory`, `sqlite`, `redis`. With the broker."""
    result_url: str
    """Another server or file for results than the configured one."""
    concurrent_mode: ConcurrentModeEnum | int | str
    """How runs share the worker: a member of `ConcurrentModeEnum`, its number, or a name. Threads;
    asyncio for `async def`.
    """
    concurrent_num: int
    """How many run at once. 50; 500 where `qps` is given."""
    specify_concurrent_pool: Pool | Executor | None
    """A pool shared with other tasks: `new_pool(...)` of the engine, a `ShrinkablePool`, or any
    `concurrent.futures.Executor` of threads. Its size counts, not `concurrent_num`.
    """
    specify_async_loop: Any
    """Your own running loop, for coroutine functions."""
    prefetch: int
    """The most messages held ahead of the running ones; how many really are, is learnt. 500."""
    qps: float
    """Starts a second, evenly, in each worker process; 0: as fast as they come. 0."""
    msg_expire_seconds: float
    """An older message is not run; 0: never too old. 0."""
    priority: int
    """0 to 9, the highest first. 0."""
    max_retry_times: int
    """Attempts after the first one. 3."""
    retry_backoff: float
    """Seconds before the first retry; doubled each time. 0."""
    retry_backoff_max: float
    """The most seconds before a retry. 600."""
    retry_jitter: bool
    """Waits are a random part of their upper half. True."""
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    """The exceptions that are retried: a class or a tuple of them. `Exception`."""
    never_retry_on: type[BaseException] | tuple[type[BaseException], ...]
    """Exceptions that are not retried, though `retry_on` has them. None."""
    specify_retry_policy: RetryPolicy | None
    """A `RetryPolicy` instead of the six options above."""
    function_timeout: float
    """The most seconds that one attempt may take; 0: no limit. 0."""
    soft_time_limit: float
    """Seconds after which `SoftTimeLimit` is raised in an attempt, which may catch it; 0: never. 0.
    """
    timeout_kill: Literal["raise", "never"]
    """What meets a thread past its deadline: "raise" an exception in it, or "never": it is only
    abandoned. "raise".
    """
    lease: float
    """Seconds for which a dead worker keeps its messages from others. As configured, 15."""
    ack: Literal["late", "early"]
    """When it is acknowledged; "early" is before the run, which a crash then loses. "late"."""
    keep_failed: bool
    """Failed and timed out messages become dead letters; False: they are gone. True."""
    cancellable: bool
    """Messages that have not started can be cancelled, upon which they end as revoked. False."""
    is_consuming_function_use_multi_params: bool
    """False: the function takes the message as one dict. True."""
    schedule_tasks_on_main_thread: bool
    """`consume()` blocks until the consumer is stopped. False."""
    is_using_rpc_mode: bool
    """Keep results, and give them to whoever waits. False."""
    joins_groups: bool
    """Its messages may be members of groups: `push_group`. False."""
    result_expires: float
    """Seconds for which a result is kept. As configured, a day."""
    max_tasks_per_child: int
    """PROCESSES: a child is replaced after so many runs; 0: never. 0."""
    max_memory_per_child: int
    """PROCESSES: a child is replaced when it has grown beyond so many bytes; 0: never. 0."""
    process_start_method: Literal["spawn", "forkserver", "fork"]
    """PROCESSES: how a child comes to be. By the zygote in a worker command, else "spawn"."""
    log_level: int | str | None
    """What is told of this queue, as a number or a name; "DEBUG" has the start and the end of each
    run. As configured.
    """
    logger_prefix: str
    """The queue's logger is `PREFIX--Consumer--QUEUE` instead of `fsdf.queue.QUEUE`. Empty."""
    create_logger_file: bool
    """What that logger tells goes to a file of its name in `LOG_FOLDER`, too. False."""
    is_print_detail_exception: bool
    """A message that is given up is told with its traceback. True."""
    is_show_message_get_from_broker: bool
    """Log the body of each fetched message, at DEBUG by the queue's `.messages` logger. False."""


@dataclass(frozen=True)
class TaskOptions:
    """Checked options of one task; None means: as the configuration says."""

    name: str = ""
    broker_kind: BrokerEnum | int | str | None = None
    broker_url: str | None = dataclasses.field(default=None, repr=False)  # may hold a password
    result_store: str | None = None
    result_url: str | None = dataclasses.field(default=None, repr=False)
    concurrent_mode: ConcurrentModeEnum | int | str | None = None
    concurrent_num: int = 50
    specify_concurrent_pool: Pool | None = None
    specify_async_loop: Any = None
    prefetch: int = 500
    qps: float = 0.0
    msg_expire_seconds: float = 0.0
    priority: int = 0
    max_retry_times: int = 3
    retry_backoff: float = 0.0
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    never_retry_on: tuple[type[BaseException], ...] = ()
    specify_retry_policy: RetryPolicy | None = None
    function_timeout: float = 0.0
    soft_time_limit: float = 0.0
    timeout_kill: str = "raise"
    lease: float | None = None
    ack: str = "late"
    keep_failed: bool = True
    cancellable: bool = False
    is_consuming_function_use_multi_params: bool = True
    schedule_tasks_on_main_thread: bool = False
    is_using_rpc_mode: bool = False
    joins_groups: bool = False
    result_expires: float | None = None
    max_tasks_per_child: int = 0
    max_memory_per_child: int = 0
    process_start_method: str = ""
    log_level: int | str | None = None
    logger_prefix: str = ""
    create_logger_file: bool = False
    is_print_detail_exception: bool = True
    is_show_message_get_from_broker: bool = False

    @property
    def needs_store(self) -> bool:
        """Say whether anything of its messages is kept beside the broker."""
        return self.is_using_rpc_mode or self.joins_groups

    def retry_policy(self) -> RetryPolicy:
        """Return what an exception means; `specify_retry_policy` replaces the options about it."""
        return self.specify_retry_policy or RetryPolicy(
            self.max_retry_times,
            self.retry_backoff,
            self.retry_backoff_max,
            self.retry_jitter,
            self.retry_on,
            self.never_retry_on,
        )


_LEAST: dict[str, float] = {
    "concurrent_num": 1, "prefetch": 0, "qps": 0, "msg_expire_seconds": 0, "priority": -9,
    "max_retry_times": 0, "retry_backoff": 0, "retry_backoff_max": 0, "function_timeout": 0,
    "soft_time_limit": 0,
    "lease": 0.05, "result_expires": 0.001, "max_tasks_per_child": 0, "max_memory_per_child": 0,
}  # fmt: skip
_MOST: dict[str, float] = {"priority": 9, "lease": 86_400}  # the others: `LARGEST`
_CHOICES = {
    "timeout_kill": ("raise", "never"),
    "ack": ("late", "early"),
    "process_start_method": ("spawn", "forkserver", "fork"),
}
_TEXTS = {"broker_url", "result_store", "result_url"}
_NUMBER = (int, float), "a number"
_FIELDS = {field.name: field for field in dataclasses.fields(TaskOptions)}


def resolve_options(given: Mapping[str, Any]) -> TaskOptions:
    """Check options and return them with their defaults.

    Raises:
        ConfigurationError: an unknown option, or a value that it cannot have.
        NotYetSupported: a known option that this version does not implement.
    """
    options: dict[str, Any] = {}
    for key, value in modern(given).items():
        if key not in _FIELDS:
            hint = did_you_mean(key, [*_FIELDS, *NOT_YET, *HISTORIC])
            raise ConfigurationError(f"unknown option {key!r}{hint}")
        options[key] = _checked(key, value)
    if options.get("qps") and "concurrent_num" not in options:
        options["concurrent_num"] = 500
    if (pool := options.get("specify_concurrent_pool")) is not None:
        options["specify_concurrent_pool"] = _pool(pool, options.get("concurrent_num", 50))
    soft, hard = options.get("soft_time_limit"), options.get("function_timeout")
    if soft and hard and soft > hard:
        raise ConfigurationError(
            f"option soft_time_limit={soft!r} is above function_timeout={hard!r}; give a lower one"
        )
    return TaskOptions(**options)


def _pool(given: object, size: int) -> Pool:
    if isinstance(given, Pool):
        return given
    from concurrent.futures import Executor  # slow to import

    if not isinstance(given, Executor):
        raise ConfigurationError(
            f"option specify_concurrent_pool={given!r} is no pool; give one of"
            " default_engine().new_pool(...), a ShrinkablePool or another Executor of threads"
        )
    from .executor import ExecutorPool

    return ExecutorPool.of(given, size)


def _checked(key: str, value: Any) -> Any:
    default = _FIELDS[key].default
    if value is None:
        return default
    if key in _LEAST:
        kinds, kind = ((int,), "a whole number") if type(default) is int else _NUMBER
        if isinstance(value, bool) or not isinstance(value, kinds) or value != value:
            raise ConfigurationError(f"option {key}={value!r} is not {kind}")
        least, most = _LEAST[key], _MOST.get(key, LARGEST)
        if not least <= value <= most:
            raise ConfigurationError(
                f"option {key}={value!r} is out of range; give at least {least:g}, at most {most:g}"
            )
    elif isinstance(default, bool) and not isinstance(value, bool):
        raise ConfigurationError(f"option {key}={value!r} is not True or False")
    elif key in _CHOICES and value not in _CHOICES[key]:
        raise ConfigurationError(f"option {key}={value!r}: give one of {', '.join(_CHOICES[key])}")
    elif (isinstance(default, str) or key in _TEXTS) and not isinstance(value, str):
        raise ConfigurationError(f"option {key}={masked(repr(value))} is no text")
    elif key == "result_store" and value:
        stores.name(value)  # refused here, not when the first result is to be kept
    elif key == "specify_retry_policy" and not isinstance(value, RetryPolicy):
        raise ConfigurationError(f"option {key}={value!r} is no RetryPolicy; give an instance")
    elif key == "log_level" and type(value) is not int:
        if type(level := logging.getLevelName(str(value).upper())) is not int:
            raise ConfigurationError(f"option log_level={value!r}: give 10, 20, 30, 40 or a name")
        return level
    elif key in ("retry_on", "never_retry_on"):
        kinds_given = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds_given):
            raise ConfigurationError(f"option {key}={value!r}: give exception classes")
        return kinds_given
    return value
