"""What fits together: brokers and hubs, pools and functions, a queue and its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .contracts import Broker, Capability, Pool, PoolCapability, ResultStore, Transactions
from .core.retry import IN_PLACE
from .declaration import title
from .errors import ConfigurationError, Unavailable
from .green import active_hub
from .registry import pools

if TYPE_CHECKING:
    from .task import Task

__all__ = [
    "able",
    "check_fit",
    "check_mode",
    "check_name",
    "check_rate",
    "check_server",
    "check_shared",
    "fitting",
    "one_store",
    "transactions_of",
]


def fitting(broker: Broker) -> Broker:
    """Under a hub, a broker that would block it is called in native threads."""
    if active_hub() and Capability.GREEN_SAFE not in broker.capabilities:
        from .brokers.green import GreenBroker

        return GreenBroker(broker)
    return broker


def check_server(broker: Broker) -> None:
    """Refusals are told at once; a server that is merely absent is waited for, as consumers say."""
    with suppress(Unavailable):
        broker.check()


def able(broker: Broker, queue: str, tasks: Iterable[Task[..., Any]]) -> Capability:
    """Return what can be done with a queue; refuse tasks that need more. May ask the server.

    Raises:
        ConfigurationError: one needs more; or as Broker.capabilities_of.
        Unavailable: nothing is known.
    """
    can = broker.capabilities_of(queue)
    for task in tasks:
        for need, option in _needs(task):
            if need not in can:
                hint = f"{broker.hints[need]}; or " if need in broker.hints else ""
                raise ConfigurationError(
                    f"{title(task.fn)} has {option}, which queue {queue!r} of {broker.address}"
                    f" cannot give: it has no {need.name}; {hint}change the option, or give the"
                    " task another queue, broker or user there"
                )
    return can


def _needs(task: Task[..., Any]) -> Iterator[tuple[Capability, str]]:
    """Yield what a task cannot do without, and the option that says so."""
    if priority := task.options.priority:
        yield Capability.PRIORITY, f"priority={priority}"
    if task.options.keep_failed:
        yield Capability.DEAD_LETTER, "keep_failed=True"
    policy = task.options.retry_policy()
    longest = min(policy.backoff_max, policy.backoff * 2.0 ** min(policy.max_retries - 1, 64))
    if policy.max_retries and longest > IN_PLACE:  # else it waits in its slot
        yield Capability.DELAY, f"retry_backoff={policy.backoff:g}"


def transactions_of(broker: Broker, queue: str) -> Transactions:
    """Return how messages of a queue are stored in transactions of others.

    Raises:
        ConfigurationError: its broker has none.
    """
    if (found := broker.transactions) is None:
        raise ConfigurationError(
            f"queue {queue!r} is at {broker.address}, which has no part in transactions: give its"
            " task broker_kind='sqlalchemy' and the database's URL, or push after the commit"
        )
    return found


def check_mode(task: Task[..., Any]) -> None:
    """Refuse a mode, or a pool of the user's, that cannot run the function."""
    if pool := task.options.specify_concurrent_pool:
        check_fit(pool, [task])
    elif task.options.concurrent_mode is not None:
        check_fit(pools.load(task.mode()), [task])


def check_fit(pool: Pool | type[Pool], tasks: Iterable[Task[..., Any]]) -> None:
    """Refuse functions that the pool cannot run."""
    if PoolCapability.BOTH in pool.capabilities:
        return
    coroutines = PoolCapability.COROUTINES in pool.capabilities
    for task in tasks:
        if task.is_coroutine != coroutines:
            kind, other = (
                ("an `async def`", "ASYNC") if task.is_coroutine else ("a `def`", "THREADING")
            )
            name = pool.__name__ if isinstance(pool, type) else type(pool).__name__
            raise ConfigurationError(
                f"{title(task.fn)} is {kind} function, which {name} cannot run; use"
                f" concurrent_mode=ConcurrentModeEnum.{other}, or declare it before its queue is"
                " consumed, in a pool of the engine's own"
            )


def check_shared(task: Task[..., Any]) -> None:
    """Refuse a queue that other processes do not see, where they are to consume it."""
    if not task.is_shared:
        raise ConfigurationError(
            f"the messages of queue {task.queue!r} are in the memory of this process, and others"
            " cannot consume them; give the task another broker, such as broker_kind='sqlite'"
        )


def check_name(task: Task[..., Any], others: Mapping[str, Task[..., Any]]) -> None:
    """Refuse a task that could not be told apart from the others of its queue, by their names."""
    queue, name = task.queue, task.options.name
    known = others.get(name)
    if known is not None and _place(known.fn) != _place(task.fn):
        which = f"a task named {name!r}" if name else "an unnamed task"
        raise ConfigurationError(
            f"queue {queue!r} has {which} already, {title(known.fn)};"
            " give each of the queue's tasks a name= of its own"
        )
    if known is None and others and "" in {*others, name}:
        raise ConfigurationError(
            f"queue {queue!r} has several tasks, and one of them has no name;"
            " give each of them a name="
        )


def check_rate(queue: str, tasks: Iterable[Task[..., Any]]) -> None:
    """Refuse tasks of one queue that want it to have several rates."""
    if len({task.options.qps for task in tasks}) > 1:
        raise ConfigurationError(
            f"the tasks of queue {queue!r} differ in qps, which paces a whole queue;"
            " give them all the same, or queues of their own"
        )


def one_store(stores: Iterable[ResultStore]) -> ResultStore | None:
    """Return the store that the tasks of a queue keep results in; refuse several."""
    found = set(stores)
    if len(found) > 1:
        raise ConfigurationError(
            "the tasks of a queue differ in their result store; give them the same, or queues"
            " of their own"
        )
    return found.pop() if found else None


def _place(fn: Callable[..., Any]) -> tuple[object, ...]:
    """Say where a function is written: a module that is loaded twice declares it again."""
    code = getattr(fn, "__code__", None)
    where: tuple[object, ...] = (code.co_filename if code else getattr(fn, "__module__", ""),)
    if isinstance(fn, partial):
        return *_place(fn.func), repr(fn.args), repr(fn.keywords)
    if (name := title(fn)).endswith("<lambda>") and code:
        return *where, name, code.co_firstlineno
    return (*where, name, repr(getattr(fn, "__self__", None if code else fn)))
