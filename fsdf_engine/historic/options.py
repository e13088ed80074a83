"""The options of the old framework: other spellings, and what this version does not do yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, NotYetSupported

__all__ = ["HISTORIC", "NOT_YET", "FunctionResultStatusPersistanceConfig", "modern"]

# Another spelling of an option of ours.
HISTORIC = {
    "msg_expire_senconds": "msg_expire_seconds",
    "msg_schedule_time_intercal": "qps",
    "is_send_consumer_hearbeat_to_redis": "is_send_consumer_heartbeat_to_redis",
    "threads_num": "concurrent_num",
    "specify_threadpool": "specify_concurrent_pool",
}


@dataclass(frozen=True)
class FunctionResultStatusPersistanceConfig:
    """What of each run is to be kept, and for how many seconds.

    Raises:
        ConfigurationError: results without statuses cannot be kept.
    """

    is_save_status: bool = False
    is_save_result: bool = False
    expire_seconds: float = 7 * 24 * 3600

    def __post_init__(self) -> None:
        if self.is_save_result and not self.is_save_status:
            raise ConfigurationError(
                "is_save_result=True needs is_save_status=True: a result is kept with its status"
            )


# What each of these is when it asks for nothing; any other value is refused.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "is_using_distributed_frequency_control": (False,),
    "is_send_consumer_heartbeat_to_redis": (False,),
    "do_task_filtering": (False,),
    "task_filtering_expire_seconds": (0, None),
    "is_do_not_run_by_specify_time_effect": (False,),
    "do_not_run_by_specify_time": (("10:00:00", "22:00:00"), None),
    "function_result_status_persistance_conf": (None,),
}
# An option that says something only where another one, which is off by default, is on.
_DEPENDS = {
    "task_filtering_expire_seconds": "do_task_filtering",
    "do_not_run_by_specify_time": "is_do_not_run_by_specify_time_effect",
}


def modern(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by our names, without those that ask for nothing.

    Raises:
        NotYetSupported: an option that this version does not implement.
        ConfigurationError: two spellings of one option say two things.
    """
    options: dict[str, Any] = {}
    for written in sorted(given, key=HISTORIC.__contains__):
        name, value = HISTORIC.get(written, written), given[written]
        if written == "msg_schedule_time_intercal" and value and isinstance(value, (int, float)):
            value = 1.0 / value
        if name != written and (ours := given.get(name)):
            if value and value != ours:
                raise ConfigurationError(
                    f"options {name}={ours!r} and {written}={given[written]!r} say two things about"
                    " the same; give one of them"
                )
            continue
        if name in NOT_YET:
            _refuse_unless_off(name, value, given)
        else:
            options[name] = value
    return options


def _refuse_unless_off(name: str, value: Any, given: Mapping[str, Any]) -> None:
    if isinstance(value, FunctionResultStatusPersistanceConfig) and not value.is_save_status:
        return
    if value in NOT_YET[name] or (name in _DEPENDS and not given.get(_DEPENDS[name])):
        return
    raise NotYetSupported(
        f"option {name}={value!r} is not implemented in this version; leave it out"
    )
