"""Consumers for unit tests: over the in-process broker, stopped at the end."""

from __future__ import annotations

import inspect

import pytest
from helpers import BOUND

from fsdf_engine.contracts import Plan
from fsdf_engine.core.binding import Binding
from fsdf_engine.core.consumer import Consumer
from fsdf_engine.core.due import Deadlines
from fsdf_engine.core.run import compile_plan
from fsdf_engine.core.worker import ConsumerHandle
from fsdf_engine.listeners import Listeners
from fsdf_engine.pools.coroutines import AsyncioPool
from fsdf_engine.pools.threads import ThreadPool


@pytest.fixture
def start():
    """`start(broker, fn, pool=None, spec={}, **consumer_options)` -> handle."""
    handles = []

    def start(broker, fn, pool=None, *, spec=None, shared=False, **options):
        if pool is None:
            pool = AsyncioPool(4) if inspect.iscoroutinefunction(fn) else ThreadPool(4)
        deadlines = Deadlines(pool)
        queue = options.pop("queue", "q")
        plan = Plan("", queue, None, None, Binding(fn).bind, **(spec or {}))
        consumer = Consumer(broker, queue, pool, **options)
        consumer.add(compile_plan(plan, fn, deadlines.watch))
        handles.append(
            ConsumerHandle(
                consumer,
                own_pool=not shared,
                deadlines=deadlines,
                listeners=Listeners(),
                forget=lambda: None,
            )
        )
        handles[-1].start()
        return handles[-1]

    yield start
    for handle in handles:
        handle.stop(timeout=BOUND)
