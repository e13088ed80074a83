"""What a task, and the consumer of its queue, are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .barrier import join_groups, sinks_of, store_of
from .checks import able, check_fit, check_rate, one_store
from .contracts import Binder, Plan, Pool, PoolCapability, ResultStore
from .controls.cancelled import Cancelled
from .controls.expiry import Expiry
from .controls.rate import Rate
from .core.consumer import Consumer
from .core.due import Deadlines
from .core.publisher import place_of
from .core.run import Watch, compile_plan
from .core.worker import ConsumerHandle
from .errors import Unavailable
from .pooling import pool_for

if TYPE_CHECKING:
    from .engine import Engine
    from .resolver import Found
    from .task import Task

__all__ = ["handle_of", "plan_of", "results_of", "serve"]


def plan_of(
    engine: Engine,
    task: Task[..., Any],
    fn: Callable[..., Any],
    bind: Binder,
    watch: Watch | None = None,
) -> Plan:
    """Compile how a message of a task is run by `fn`; `watch` as for `compile_plan`."""
    o = task.options
    expires = o.result_expires or engine.config.number("RESULT_EXPIRES")
    plan = Plan(
        o.name,
        task.queue,
        None,
        None,
        bind,
        sinks_of(o, expires),
        o.function_timeout,
        o.timeout_kill == "raise",
        o.keep_failed,
        place_of(engine.broker_of(o)),
        o.msg_expire_seconds,
        o.retry_policy(),
        o.ack == "early",
        codecs=engine.codecs,
        soft=o.soft_time_limit,
    )
    return compile_plan(engine.amend(plan), fn, watch)


def results_of(engine: Engine, tasks: Iterable[Task[..., Any]]) -> ResultStore | None:
    """Return the one store that the tasks of a queue keep results and groups in."""
    return one_store(store_of(engine, t.options) for t in tasks if t.options.needs_store)


def handle_of(
    engine: Engine,
    task: Task[..., Any],
    others: Sequence[Task[..., Any]],
    pool: Pool | None,
    ceiling: int | None,
    forget: Callable[[], object],
) -> ConsumerHandle:
    """Make the consumer of a queue as `task` wants it; it serves nothing yet.

    Without `pool` it has one of its own, unless the task names one.
    """
    options = task.options
    pool = pool or options.specify_concurrent_pool
    own_pool, pool = pool is None, pool or pool_for(task, others)
    check_fit(pool, others)
    check_rate(task.queue, others)
    results_of(engine, others)  # what is wrong with them is told before a thread starts
    with suppress(Unavailable):  # which the consumer's own thread waits for
        able(engine.broker_of(options), task.queue, others)
    ceiling = options.prefetch if ceiling is None else ceiling
    return ConsumerHandle(
        _consumer_of(engine, task, others, pool, ceiling),
        own_pool=own_pool,
        deadlines=Deadlines(pool, engine.listeners),
        listeners=engine.listeners,
        forget=forget,
    )


def _consumer_of(
    engine: Engine,
    task: Task[..., Any],
    others: Sequence[Task[..., Any]],
    pool: Pool,
    ceiling: int,
) -> Consumer:
    from .log.build import report_of  # only who consumes needs these two
    from .worker_process import ask_restart

    options, broker = task.options, engine.broker_of(task.options)

    consumer = Consumer(
        broker,
        task.queue,
        pool,
        valve=Rate(options.qps) if options.qps else None,
        gates=[Expiry(), *engine.gates],
        codecs=engine.codecs,
        lease=options.lease or engine.config.number("LEASE"),
        ceiling=ceiling,
        overload=ask_restart,
        listeners=engine.listeners,
        able=partial(able, broker, task.queue, others),
    )
    if engine.reports:
        kind = engine.services.kind_of(options)
        report = report_of(consumer, broker, options, engine.config, kind)
        consumer.report = consumer.outbox.report = report
    return consumer


def serve(
    engine: Engine, handle: ConsumerHandle, tasks: Iterable[Task[..., Any]], *found: Found
) -> None:
    """Let a consumer run these tasks, and those that a resolver has found."""
    served = [*handle.found, *found, *((task, "") for task in tasks)]
    handle.consumer.outbox.results = results_of(engine, (task for task, _ in served))
    kills = PoolCapability.KILLS in handle.pool.capabilities
    for task, resolver in served:
        plan, o = task.plan(None if kills else handle.deadlines.watch), task.options
        gate = Cancelled(engine.marks(o)) if o.cancellable else None
        plan = plan._replace(trace=o.is_print_detail_exception, gate=gate, resolver=resolver)
        handle.consumer.add(plan)
        join_groups(engine, o, handle.consumer.outbox)
