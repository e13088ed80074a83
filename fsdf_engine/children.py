"""What child processes of the default engine call by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .contracts import Plan
from .core.worker import GRACE
from .engine import default_engine
from .foreground import run, tune
from .log.relay import audible
from .worker_process import Stop, Target

__all__ = ["consume_targets", "resolve_plan"]


def resolve_plan(queue: str, name: str) -> Plan:
    """Return the plan of a declared task, as a child of a pool runs it.

    Raises:
        UnknownTask: this process has not declared it.
    """
    task = default_engine().find(queue, name)
    return audible(task.plan(), task.options.logger_prefix)


def consume_targets(targets: Sequence[Target]) -> tuple[Stop, Callable[[], None]]:
    """Start the consumers of these targets; return how to stop and join them."""
    engine = default_engine()
    handles = engine.consume_all((engine.find(*target) for target in targets), lend=True)
    tune()
    return engine.stop, lambda: run(engine, handles, GRACE)
