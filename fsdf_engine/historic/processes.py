"""Several consumers in several processes, each told by the parameters that made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from ..engine import default_engine
from ..errors import ConfigurationError
from ..foreground import tune
from ..supervisor import Supervisor
from ..task import Task
from ..worker_process import Stop
from .attributes import init_params
from .clients import QueueConsumer

if TYPE_CHECKING:
    from ..core.worker import ConsumerHandle

__all__ = [
    "consumer_init_params_include_consuming_function",
    "run_many_consumer_by_init_params", "run_many_consumer_with_multi_process",
]  # fmt: skip

InitParams = Mapping[str, Any]


def consumer_init_params_include_consuming_function(
    consuming_function: Task[..., Any],
) -> dict[str, Any]:
    """Return the parameters of a task as `get_consumer` takes them, its function included.

    Raises:
        ConfigurationError: it is no task.
    """
    if not isinstance(consuming_function, Task):
        raise ConfigurationError(f"{consuming_function!r} is no task; decorate it with task_deco")
    return {**init_params(consuming_function), "consuming_function": consuming_function}


def run_many_consumer_by_init_params(consumer_init_params_list: Iterable[InitParams]) -> None:
    """Consume several queues here; blocks until all their consumers are stopped.

    Raises:
        ConfigurationError: as for `get_consumer`.
    """
    for handle in _start(consumer_init_params_list):
        handle.join()


def run_many_consumer_with_multi_process(
    consumer_init_params_list: Iterable[InitParams], process_num: int = 1
) -> Supervisor:
    """Consume several queues in each of `process_num` supervised processes. Does not block.

    Put the call under `if __name__ == '__main__':`; the children import the main module, too.

    Raises:
        ConfigurationError: there is nothing to consume, a child cannot find a function, or this
            process is a child that is importing its main module.
    """
    wanted: list[Any] = [dict(each) for each in consumer_init_params_list]
    if not wanted:
        raise ConfigurationError("no consumer to start; give the parameters of at least one")
    for each in wanted:
        QueueConsumer(**each)  # what is wrong with one is told here, not in the children
        _check_travels(each)
    supervisor = Supervisor(process_num, targets=wanted, function=f"{__name__}:{_consume.__name__}")
    supervisor.start()
    return supervisor


def _consume(targets: Sequence[InitParams]) -> tuple[Stop, Callable[[], None]]:
    """Start these consumers in a child process; return how to stop and how to join them."""
    handles = _start(targets)
    tune()

    def join() -> None:
        for handle in handles:
            handle.join()

    return default_engine().stop, join


def _start(targets: Iterable[InitParams]) -> list[ConsumerHandle]:
    engine = default_engine()
    return [engine.consume(QueueConsumer(**each).task) for each in targets]


def _check_travels(params: InitParams) -> None:
    for name, value in params.items():
        try:
            ForkingPickler.dumps(value)
        except Exception as error:  # whatever its class raises
            raise ConfigurationError(
                f"{name}={value!r} cannot be given to a child process ({error}); declare the"
                " function at the top level of a module, and leave pools and loops out"
            ) from error
