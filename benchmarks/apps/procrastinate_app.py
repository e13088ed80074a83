"""procrastinate: a coroutine, as what it runs best; jobs that have succeeded are deleted."""

from __future__ import annotations

import os
from collections.abc import Iterable

from procrastinate import App, PsycopgConnector

from benchmarks.meter import hit

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_REDIS_URL"]))


@app.task(name="noop", queue="bench")
async def noop(n: int) -> None:
    hit(n)


async def start() -> None:
    await app.open_async()
    if not await app.check_connection_async():
        await app.schema_manager.apply_schema_async()


async def stop() -> None:
    await app.close_async()


async def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        await noop.defer_async(n=n)


async def publish_many(numbers: Iterable[int]) -> None:
    await noop.batch_defer_async(*[{"n": n} for n in numbers])
