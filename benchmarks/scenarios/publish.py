"""Publish: one process, no worker, messages stored per second; beside redis-py's bare LPUSH.

The bare LPUSH sends the very bytes of a message that fsdf has stored.
"""

from __future__ import annotations

from ..bench import Bench
from ..contestants import CONTESTANTS, Contestant
from ..process import run_client

__all__ = ["publish", "publish_one"]

RAW = "raw redis-py LPUSH"
# the pool has no part in publishing: one contestant for each product and broker
PUBLISHERS = tuple(
    one
    for one in CONTESTANTS
    if not one.name.endswith((" gevent", " eventlet", " async", " processes"))
)


def publish_one(
    bench: Bench,
    one: Contestant,
    action: str,
    run: int,
    name: str,
    scenario: str = "publish",
) -> None:
    """Measure `action` of one contestant's client and record it as `name`."""
    bench.fresh()
    environment = bench.environment(one)
    try:
        answer = run_client(one.app, action, bench.options.window, environment, bench.folder)
    except RuntimeError as error:
        bench.add(scenario, name, run, failed=str(error))
        return
    bench.add(
        scenario,
        name,
        run,
        rate=answer["count"] / answer["wall"],
        client_us=answer["cpu"] / answer["count"] * 1e6,
        messages=answer["count"],
    )


def _raw_client(bench: Bench) -> Contestant:
    """redis-py with the body of a message of fsdf, read back from the server."""
    bench.fresh()
    one = next(one for one in PUBLISHERS if one.name.startswith("fsdf REDIS_ACK_ABLE"))
    bench.fill(one, bench.environment(one), 1)
    body = bench.server.client.lindex("bench", 0)
    environment = {"BENCH_RAW_BODY": body.hex()}
    return Contestant(RAW, "redis", "benchmarks.apps.raw_app", (), "", "none", environment)


def publish(bench: Bench, run: int) -> None:
    """Measure every publisher once, fsdf and rq in batches too."""
    raw = _raw_client(bench)
    publish_one(bench, raw, "publish", run, RAW)
    publish_one(bench, raw, "publish_many", run, f"{RAW}, 500 at once")
    for one in bench.contestants(PUBLISHERS):
        publish_one(bench, one, "publish", run, one.name)
        if one.app.endswith(("fsdf_app", "rq_app")):
            publish_one(bench, one, "publish_many", run, f"{one.name}, publish_many")
