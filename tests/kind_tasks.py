"""Tasks for pools that queues or kinds of functions share; child processes import this module."""

from __future__ import annotations

import asyncio

from fsdf_engine import task_deco

OPTIONS = {"broker_kind": "memory", "concurrent_num": 2, "is_using_rpc_mode": True}


@task_deco("kinds_one", prefetch=4, **OPTIONS)
def one(n):
    return n


@task_deco("kinds_two", prefetch=4, **OPTIONS)
def two(n):
    return n


@task_deco("kinds_mixed", name="plain", concurrent_mode="processes", **OPTIONS)
def plain(n):
    return n, "plain"


@task_deco("kinds_mixed", name="coroutine", **OPTIONS)
async def coroutine(n):
    await asyncio.sleep(0)
    return n, "coroutine"
