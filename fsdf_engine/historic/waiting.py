"""Waiting for consumers and queues, and showing them and the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..engine import default_engine
from ..errors import ConfigurationError, ResultTimeout
from ..registry import BrokerEnum
from ..shrinkable import ShrinkablePool
from .clients import QueueConsumer

if TYPE_CHECKING:
    from ..core.worker import ConsumerHandle
    from ..options import Options

__all__ = [
    "ConsumersManager", "HasNotAsyncResult", "ThreadPoolExecutorShrinkAble", "show_frame_config",
    "wait_for_possible_has_finish_all_tasks",
    "wait_for_possible_has_finish_all_tasks_by_conusmer_list",
]  # fmt: skip

ThreadPoolExecutorShrinkAble = ShrinkablePool
HasNotAsyncResult = ResultTimeout


class _Consumers:
    """The consumers of this process."""

    @property
    def schedulal_thread_to_be_join(self) -> Sequence[ConsumerHandle]:
        """The handles of the consumers that run; each can be joined."""
        return default_engine().handles()

    def join_all_consumer_shedual_task_thread(self) -> None:
        """Block until all consumers of this process are stopped."""
        for handle in default_engine().handles():
            handle.join()

    def show_all_consumer_info(self) -> None:
        """Print each consumer with its queue, its pool and how much of that runs."""
        for handle in default_engine().handles():
            pool = handle.pool
            print(f"{handle.queue}: {type(pool).__name__}, {len(pool.running())} of {pool.size}")


ConsumersManager = _Consumers()


def wait_for_possible_has_finish_all_tasks(
    queue_name: str,
    minutes: float = 3,
    send_stop_to_broker: int = 0,
    broker_kind: BrokerEnum | int | str | None = None,
) -> bool:
    """Block until nothing waits in the queue, is delayed or runs, anywhere; return True.

    That is exact, and found out at once, so `minutes` is not needed.

    Raises:
        ConfigurationError: `send_stop_to_broker` is asked for; consumers are stopped by their
            handles.
    """
    if send_stop_to_broker:
        raise ConfigurationError(
            f"send_stop_to_broker={send_stop_to_broker!r}: a message cannot stop a consumer;"
            " call stop() of what consume() returned"
        )
    engine = default_engine()
    broker = engine.broker(broker_kind)
    for task in engine.tasks():
        if task.queue == queue_name and engine.broker_of(task.options) is broker:
            return task.join()
    given: Options = {} if broker_kind is None else {"broker_kind": broker_kind}
    return engine.remote(queue_name, **given).join()


def wait_for_possible_has_finish_all_tasks_by_conusmer_list(
    consumer_list: Iterable[QueueConsumer], minutes: float = 3
) -> bool:
    """As `wait_for_possible_has_finish_all_tasks`, for the queues of several consumers."""
    return all(consumer.task.join() for consumer in consumer_list)


def show_frame_config() -> None:
    """Print every configuration key, its value without passwords, and where that comes from."""
    from ..cli.output import show_rows
    from ..cli.settings import explain

    show_rows(explain(default_engine().config), as_json=False)
