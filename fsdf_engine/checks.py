"""What fits together: brokers and hubs, pools and functions, a queue and its tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .contracts import Broker, Capability, Pool, PoolCapability
from .errors import ConfigurationError, Unavailable
from .green import active_hub

if TYPE_CHECKING:
    from .task import Task

__all__ = ["check_fit", "check_server", "fitting", "place"]
log = logging.getLogger("fsdf.engine")


def fitting(broker: Broker) -> Broker:
    """Under a hub, a broker that would block it is called in native threads."""
    if active_hub() and Capability.GREEN_SAFE not in broker.capabilities:
        from .brokers.green import GreenBroker

        return GreenBroker(broker)
    return broker


def check_server(broker: Broker) -> None:
    """Refusals are told at once; a server that is merely absent is waited for."""
    try:
        broker.check()
    except Unavailable as error:
        log.warning("the broker cannot be reached yet: %s", error)


def check_fit(pool: Pool, tasks: Iterable[Task[..., Any]]) -> None:
    """Refuse functions that the pool cannot run."""
    if PoolCapability.KILLS in pool.capabilities:
        return
    coroutines = PoolCapability.COROUTINES in pool.capabilities
    for task in tasks:
        if task.is_coroutine != coroutines:
            kind, other = ("async def", "ASYNC") if task.is_coroutine else ("def", "THREADING")
            raise ConfigurationError(
                f"{task.fn.__qualname__} is a plain `{kind}` function, which its pool cannot run;"
                f" use concurrent_mode=ConcurrentModeEnum.{other}"
            )


def place(fn: Callable[..., Any]) -> tuple[str, str]:
    """Say where a function is written: a module that is loaded twice declares it again."""
    code = getattr(fn, "__code__", None)
    name = getattr(fn, "__qualname__", repr(fn))
    return (code.co_filename if code else getattr(fn, "__module__", "")), name
