"""RabbitMQ: the same worker and publisher of fsdf by each client, of Celery, and bare loops.

A worker that is held still would lose its connection, as the server hears no heartbeats. So the
queue is filled first, the worker is started then, and measured from its first run to its last.
Queues are classic, as Celery's, but where quorum is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..bench import Bench, Failure
from ..contestants import APPS, AT_LEAST, SLOTS, Contestant
from ..meter import CAPACITY
from ..process import run_client
from ..rabbit import rabbit

__all__ = ["CELERY", "CLIENTS", "RABBIT", "layer_name", "name_of", "raw_name", "rabbitmq"]

CELERY, CLIENTS = "celery RabbitMQ threads", ("amqpstorm", "pika")
FILLED = 4_000  # messages of the pass that foretells how many a window needs


def name_of(client: str, quorum: bool = False) -> str:
    """The name of fsdf over a client."""
    return f"fsdf RABBITMQ_{client.upper()} threading{' quorum' if quorum else ''}"


def raw_name(client: str) -> str:
    """The name of the bare loop over a client."""
    return f"raw {client}"


def layer_name(product: str) -> str:
    """The name of the Celery project as a product runs it."""
    return f"{product} RabbitMQ -P threads, late"


def _fsdf(client: str, quorum: bool) -> Contestant:
    return Contestant(
        name_of(client, quorum),
        "fsdf",
        "benchmarks.apps.fsdf_app",
        ("fsdf", "run", str(APPS / "fsdf_app.py")),
        AT_LEAST,
        "adaptive up to 500 (its default)",
        {
            "BENCH_BROKER": f"RABBITMQ_{client.upper()}",
            "BENCH_POOL": "THREADING",
            "FSDF_RABBITMQ_URL": f"{{url}}?queue_type={'quorum' if quorum else 'classic'}",
        },
        server=False,
    )


def _raw(client: str) -> Contestant:
    return Contestant(
        raw_name(client),
        client,
        "benchmarks.apps.raw_amqp_app",
        ("-m", "benchmarks.apps.raw_amqp_app"),
        "acknowledges per 100, confirms per 500",
        "1000",
        {"BENCH_CLIENT": client},
        slots="1 loop",
        server=False,
        python=True,
    )


def _worker(name: str, app: str, words: tuple[str, ...], extra: Mapping[str, str]) -> Contestant:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
    return Contestant(
        name,
        words[0],
        app,
        (*words, "-A", app, "worker", "-P", "threads", "-c", f"{SLOTS}", *quiet),
        "at least once (task_acks_late)",
        "adaptive up to 500" if words[0] == "fsdf" else f"prefetch multiplier 64: {64 * SLOTS}",
        extra,
        server=False,
    )


def _layer(product: str) -> Contestant:
    ours = "1" if product == "fsdf celery" else "0"
    extra = {"FSDF_AS_CELERY": ours, "BENCH_ACKS": "late"}
    words = tuple(product.split())
    return _worker(layer_name(product), "benchmarks.apps.layer_app", words, extra)


RABBIT: tuple[Contestant, ...] = (
    *(_fsdf(client, quorum) for client in CLIENTS for quorum in (False, True)),
    _worker(CELERY, "benchmarks.apps.celery_app", ("celery",), {"BENCH_PREFETCH": "64"}),
    *(_raw(client) for client in CLIENTS),
    *(_layer(product) for product in ("fsdf celery", "celery")),
)


def _consumed(bench: Bench, one: Contestant, url: str, count: int) -> dict[str, Any]:
    """Fill a queue with `count` messages, start the worker, and measure."""
    environment = one.variables(url, bench.folder, results=False)
    bench.meter.clear(count)
    run_client(one.app, "fill", count, environment, bench.folder)
    with bench.worker(one, environment, warm=0) as worker:
        bench.await_runs(worker, count, 60 + 20 * bench.options.window)
        cpu, rss = worker.cpu(), worker.rss()
    runs = bench.meter.runs(count)
    window = runs[-1] - runs[0]
    return {
        "rate": (count - 1) / window, "messages": count, "window": window,
        "worker_us": cpu / count * 1e6, "rss": rss,
    }  # fmt: skip


def _measure(bench: Bench, one: Contestant, run: int) -> None:
    """Consume and publish, each on a server of its own, so that none finds another one's queues."""
    scenario, window = "rabbitmq", bench.options.window
    try:
        with rabbit() as server:
            url = server.variables()["FSDF_TEST_RABBITMQ_URL"]
            count = bench.options.messages or bench.counts.get(one.name)
            if count is None:
                rate = _consumed(bench, one, url, FILLED)["rate"]
                count = min(CAPACITY, int(rate * window * 1.1) + FILLED)
                bench.counts[one.name] = count
            bench.add(scenario, one.name, run, **_consumed(bench, one, url, count))
            environment = one.variables(url, bench.folder, results=False)
            many = one.app.endswith(("fsdf_app", "raw_amqp_app"))
            for action in ("publish", "publish_many") if one.distribution == "fsdf" and many else (
                ("publish_many",) if many else ("publish",)
            ):  # fmt: skip
                told = run_client(one.app, action, window / 2, environment, bench.folder)
                name = f"{one.name}, {action}"
                bench.add(
                    "rabbitmq_publish", name, run, rate=told["count"] / told["wall"],
                    client_us=told["cpu"] / told["count"] * 1e6, messages=told["count"],
                )  # fmt: skip
    except (Failure, RuntimeError) as error:
        bench.add(scenario, one.name, run, failed=str(error))


def rabbitmq(bench: Bench, run: int) -> None:
    """Measure everybody once."""
    bench = replace(bench, options=replace(bench.options, window=min(4.0, bench.options.window)))
    for one in bench.contestants(RABBIT):
        _measure(bench, one, run)
