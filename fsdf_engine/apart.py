"""Messages that are stored in transactions of others, apart from the run in which that happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .call import call_of
from .checks import transactions_of
from .contracts import Outgoing, Transactions
from .core.writer import moment, writer
from .message import new_id

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .call import Control
    from .task import Task

__all__ = ["astore_in", "store_in"]
_Named = Mapping[str, Any]


def store_in(
    task: Task[..., Any],
    transaction: object,
    args: Sequence[Any],
    kwargs: _Named,
    /,
    **control: Unpack[Control],
) -> str:
    """Store a call of a task; return its id. Raises as `Task.push_in`."""
    transactions, outgoing = _written(task, args, kwargs, **control)
    transactions.publish(transaction, (outgoing,))
    return outgoing.id


async def astore_in(
    task: Task[..., Any],
    transaction: object,
    args: Sequence[Any],
    kwargs: _Named,
    /,
    **control: Unpack[Control],
) -> str:
    """As `store_in`, in a transaction of asyncio's."""
    transactions, outgoing = _written(task, args, kwargs, **control)
    await transactions.apublish(transaction, (outgoing,))
    return outgoing.id


def _written(
    task: Task[..., Any], args: Sequence[Any], kwargs: _Named, /, **control: Unpack[Control]
) -> tuple[Transactions, Outgoing]:
    """Write a message that nobody awaits yet, and whose id no repeat of a run gives again."""
    publisher, *_ = task._services()
    transactions = transactions_of(publisher.broker, task.queue)
    options = task.options
    write = writer(task._self_binding.name, task.queue, options.name, options.priority, "")
    if control.get("task_id") is None:
        control["task_id"] = new_id()
    return transactions, call_of(write, args, kwargs, moment(), **control)
