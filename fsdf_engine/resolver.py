"""Tasks that nobody has declared: a layer's resolver finds them by name, where the code runs.

Where that is a child process, its parent learns the options that it has to know, as plain data, and
imports nothing. Each child asks for itself when it gets the first message of a name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from .checks import check_fit, check_rate
from .contracts import Effect, Job, Plan, PoolCapability
from .core.binding import Unnamed, elsewhere, unbound
from .core.resolving import LIMIT, function_at
from .core.telling import tell
from .core.worker import ConsumerHandle
from .errors import ArgumentError, ConfigurationError
from .options import resolve_options
from .outcomes import Failed, Outcome, Succeeded, text_of

if TYPE_CHECKING:
    from .core.run import Watch
    from .engine import Engine
    from .task import Task

__all__ = ["Found", "Resolver", "let_resolve", "question"]

# Of (queue, name): a task, or None where it knows none. It may import, and declare tasks.
Resolver: TypeAlias = Callable[[str, str], "Task[..., Any] | None"]
Found: TypeAlias = tuple["Task[..., Any]", str]  # and by which resolver a child finds it
Run: TypeAlias = Callable[[Job], Outcome]
# What a parent has to know of a task whose function is elsewhere. The broker is the queue's.
_PLAIN = (
    "name", "ack", "keep_failed", "function_timeout", "soft_time_limit", "timeout_kill",
    "msg_expire_seconds", "priority", "qps", "cancellable", "joins_groups", "is_using_rpc_mode",
    "result_expires", "result_store", "result_url", "is_print_detail_exception",
)  # fmt: skip


def let_resolve(engine: Engine, task: Task[..., Any], handle: ConsumerHandle) -> None:
    """Have the consumer that `task` has started ask the engine's resolver about unknown names.

    Raises:
        ConfigurationError: children could not find the resolver.
    """
    if (resolver := engine.resolver) is None:
        return
    from .asking import Asking, Turns  # who has no resolver does without

    place = resolver if isinstance(resolver, str) else _place(resolver)
    if not place and PoolCapability.KILLS in handle.pool.capabilities:
        raise ConfigurationError(
            f"child processes cannot find the resolver {resolver!r}; give one that is defined at"
            ' the top level of a module, or "module:function"'
        )
    run = partial(_ask, resolver, handle.deadlines.watch)
    arun = partial(_aask, run)
    here = f"{question.__module__}:{question.__name__}"
    plan = Plan(place, handle.queue, run, arun, unbound, timeout=LIMIT, resolver=here)
    serve, consumer = partial(_serve, engine, task, handle, place), handle.consumer
    others = [h.consumer.resolving for h in engine.handles()]
    turns = next((other.turns for other in others if type(other) is Asking), Turns())
    consumer.resolving = Asking(plan, serve, handle.pool, consumer.plans, turns, consumer.rouse)


def _place(resolver: Resolver) -> str:
    name = getattr(resolver, "__qualname__", "")
    return f"{resolver.__module__}:{name}" if name and "<" not in name else ""


# ------------------------------------------------------------------ where the code runs: here


def _ask(resolver: Resolver | str, watch: Watch, job: Job) -> Outcome:
    """Run a question in this process. Blocks for as long as the resolver does."""

    def ask() -> Outcome:
        find = function_at(resolver) if isinstance(resolver, str) else resolver
        return Succeeded(find(job.plan.queue, job.kwargs["name"]))

    watch(job)
    try:
        return Context().run(ask)
    except BaseException as error:
        return tell(job, Failed(error))


async def _aask(run: Run, job: Job) -> Outcome:
    """As `_ask`, in a thread of its own: an import would keep the loop from everything else."""
    import asyncio  # slow to import, and loaded already where this runs

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Outcome] = loop.create_future()

    def give(outcome: Outcome) -> None:
        if not answer.done():
            answer.set_result(outcome)

    def ask() -> None:
        outcome = run(job)
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(give, outcome)

    threading.Thread(target=ask, name="fsdf-resolver", daemon=True).start()
    return await answer


# ------------------------------------------------------------------ where the code runs: a child


def question(queue: str, place: str) -> Plan:
    """Return how a child runs questions to the resolver at `place`, "module:function"."""
    return Plan(place, queue, _tell_plain, None, unbound, (_of_json,))


def _tell_plain(job: Job) -> Outcome:
    try:
        found = function_at(job.plan.name)(job.plan.queue, job.kept["name"])
        outcome: Outcome = Succeeded(None if found is None else _plain(found))
    except BaseException as error:
        outcome = Failed(error)
    return tell(job, outcome)


def _plain(found: Any) -> dict[str, Any]:
    task = _checked(found)
    told = {name: getattr(task.options, name) for name in _PLAIN}
    return {"queue": task.queue, "is_coroutine": task.is_coroutine, "options": told}


def _of_json(*told: object) -> list[Effect]:
    return []


setattr(_of_json, "of_json", _of_json)  # noqa: B010  a function has no attributes for mypy


# ------------------------------------------------------------------ the consumer


def _serve(
    engine: Engine,
    consumed: Task[..., Any],
    handle: ConsumerHandle,
    place: str,
    name: str,
    told: Any,
) -> None:
    """Let the consumer run what the resolver has found.

    Raises:
        FsdfError: it is no task, or cannot be run here.
    """
    task = _elsewhere(engine, consumed, told) if type(told) is dict else _checked(told)
    if task.queue != handle.queue:
        raise ConfigurationError(f"the task {name!r} is one of queue {task.queue!r}")
    if "" in handle.consumer.plans:
        raise ConfigurationError(
            f"queue {task.queue!r} has a task without a name, which can only be alone; give it a"
            " name="
        )
    check_fit(handle.pool, [task])
    check_rate(handle.queue, [consumed, task])
    engine.serve_found(handle, consumed, (task, place))


def _checked(found: Any) -> Task[..., Any]:
    from .task import Task

    if not issubclass(type(found), Task):
        raise ArgumentError(f"the resolver gave {text_of(found, repr)}, which is no task")
    return found  # type: ignore[no-any-return]


def _elsewhere(engine: Engine, consumed: Task[..., Any], told: dict[str, Any]) -> Task[..., Any]:
    """Return the task whose function a child has."""
    from .task import Task

    of = consumed.options
    options = {**told["options"], "broker_kind": of.broker_kind, "broker_url": of.broker_url}
    fn = _aelsewhere if told["is_coroutine"] else elsewhere
    return Task(fn, told["queue"], resolve_options(options), engine, Unnamed())


async def _aelsewhere(*args: Any, **kwargs: Any) -> Any:
    """Stand for a coroutine function that this process does not have."""
    elsewhere()
