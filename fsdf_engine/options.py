"""The options of a task: what may be given, what it means, and what is not there yet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from .contracts import Pool
from .core.retry import RetryPolicy
from .errors import ConfigurationError, NotYetSupported
from .registry import BrokerEnum, ConcurrentModeEnum
from .spelling import did_you_mean

__all__ = ["Options", "TaskOptions", "resolve_options"]


class Options(TypedDict, total=False):
    """Options of `task_deco`, `get_consumer` and `get_publisher`; durations in seconds.

    Where: `broker_kind`, `broker_url`, `result_store`, `result_url`. How many at once:
    `concurrent_mode`, `concurrent_num` (500 where `qps` is given), `specify_concurrent_pool`,
    `specify_async_loop`, `prefetch` (the most messages held beyond the running ones). When: `qps`
    (starts a second), `msg_expire_seconds`, `priority` (0..9). What if: `max_retry_times`,
    `retry_backoff`, `retry_backoff_max`, `retry_jitter`, `retry_on`, `never_retry_on`,
    `specify_retry_policy` (instead of these six), `function_timeout`, `timeout_kill` ("raise" or
    "never"), `lease`, `ack` ("late" or "early"). Results: `is_using_rpc_mode`, `result_expires`.
    PROCESSES: `max_tasks_per_child`, `max_memory_per_child` (bytes), `process_start_method`.
    """

    name: str
    broker_kind: BrokerEnum | int | str
    broker_url: str
    result_store: str
    result_url: str
    concurrent_mode: ConcurrentModeEnum | int | str
    concurrent_num: int
    specify_concurrent_pool: Pool | None
    specify_async_loop: Any
    prefetch: int
    qps: float
    msg_expire_seconds: float
    priority: int
    max_retry_times: int
    retry_backoff: float
    retry_backoff_max: float
    retry_jitter: bool
    retry_on: tuple[type[BaseException], ...]
    never_retry_on: tuple[type[BaseException], ...]
    specify_retry_policy: RetryPolicy | None
    function_timeout: float
    timeout_kill: str
    lease: float
    ack: str
    keep_failed: bool
    is_using_rpc_mode: bool
    result_expires: float
    max_tasks_per_child: int
    max_memory_per_child: int
    process_start_method: str


@dataclass(frozen=True)
class TaskOptions:
    """Checked options of one task; None means: as the configuration says."""

    name: str = ""
    broker_kind: BrokerEnum | int | str | None = None
    broker_url: str | None = None
    result_store: str | None = None
    result_url: str | None = None
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
    timeout_kill: str = "raise"
    lease: float | None = None
    ack: str = "late"
    keep_failed: bool = True
    is_using_rpc_mode: bool = False
    result_expires: float | None = None
    max_tasks_per_child: int = 0
    max_memory_per_child: int = 0
    process_start_method: str = "spawn"

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


HISTORIC = {
    "msg_expire_senconds": "msg_expire_seconds",
    "is_send_consumer_hearbeat_to_redis": "is_send_consumer_heartbeat_to_redis",
}
# What these are when they ask for nothing; any other value is refused.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "is_using_distributed_frequency_control": (False,),
    "is_send_consumer_heartbeat_to_redis": (False,),
    "do_task_filtering": (False,),
    "task_filtering_expire_seconds": (0, None),
    "is_do_not_run_by_specify_time_effect": (False,),
    "do_not_run_by_specify_time": (("10:00:00", "22:00:00"), None),
    "schedule_tasks_on_main_thread": (False,),
    "function_result_status_persistance_conf": (None,),
    "is_consuming_function_use_multi_params": (True,),
    "log_level": (10, None),
    "logger_prefix": ("", None),
    "create_logger_file": (True, False, None),
    "is_print_detail_exception": (True,),
    "is_show_message_get_from_broker": (False,),
}
_LEAST: dict[str, float] = {
    "concurrent_num": 1, "prefetch": 0, "qps": 0, "msg_expire_seconds": 0, "priority": 0,
    "max_retry_times": 0, "retry_backoff": 0, "retry_backoff_max": 0, "function_timeout": 0,
    "lease": 0.05, "result_expires": 0.001, "max_tasks_per_child": 0, "max_memory_per_child": 0,
}  # fmt: skip
_CHOICES = {
    "timeout_kill": ("raise", "never"),
    "ack": ("late", "early"),
    "process_start_method": ("spawn", "forkserver", "fork"),
}
_NUMBER = (int, float), "a number"
_FIELDS = {field.name: field for field in dataclasses.fields(TaskOptions)}


def resolve_options(given: Mapping[str, Any]) -> TaskOptions:
    """Check options and return them with their defaults.

    Raises:
        ConfigurationError: an unknown option, or a value that it cannot have.
        NotYetSupported: a known option that this version does not implement.
    """
    options: dict[str, Any] = {}
    for written, value in given.items():
        key = HISTORIC.get(written, written)
        if key == "msg_schedule_time_intercal":
            key, value = "qps", (1.0 / value if value else 0.0)
            if given.get("qps"):
                continue
        if key in NOT_YET:
            if value not in NOT_YET[key]:
                raise NotYetSupported(
                    f"option {key}={value!r} is not implemented in this version; leave it out"
                )
        elif key not in _FIELDS:
            hint = did_you_mean(key, [*_FIELDS, *NOT_YET, *HISTORIC])
            raise ConfigurationError(f"unknown option {key!r}{hint}")
        else:
            options[key] = _checked(key, value)
    if options.get("qps") and "concurrent_num" not in options:
        options["concurrent_num"] = 500
    return TaskOptions(**options)


def _checked(key: str, value: Any) -> Any:
    default = _FIELDS[key].default
    if value is None:
        return default
    if key in _LEAST:
        kinds, kind = ((int,), "a whole number") if type(default) is int else _NUMBER
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            raise ConfigurationError(f"option {key}={value!r} is not {kind}")
        if value < _LEAST[key] or (key == "priority" and value > 9):
            bounds = f"at least {_LEAST[key]:g}" + (", at most 9" if key == "priority" else "")
            raise ConfigurationError(f"option {key}={value!r} is out of range; give {bounds}")
    elif isinstance(default, bool) and not isinstance(value, bool):
        raise ConfigurationError(f"option {key}={value!r} is not True or False")
    elif key in _CHOICES and value not in _CHOICES[key]:
        raise ConfigurationError(f"option {key}={value!r}: give one of {', '.join(_CHOICES[key])}")
    elif isinstance(default, str) and not isinstance(value, str):
        raise ConfigurationError(f"option {key}={value!r} is no text")
    elif key in ("retry_on", "never_retry_on"):
        kinds_given = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds_given):
            raise ConfigurationError(f"option {key}={value!r}: give exception classes")
        return kinds_given
    return value
