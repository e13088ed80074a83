"""RabbitMQ: the same worker and publisher of fsdf by each client, of Celery, and bare loops.

A worker that is held still would lose its connection, as the server hears no heartbeats: see
filled.py. Queues are quorum, as fsdf makes them, where that is said; the others classic, as
Celery makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scripts.servers import RabbitMQ

from ..bench import Bench
from ..contestants import APPS, AT_LEAST, SLOTS, Contestant
from ..service import own
from .filled import WINDOW, measure

__all__ = ["CELERY", "CLIENTS", "RABBIT", "layer_name", "name_of", "raw_name", "rabbitmq"]

CELERY, CLIENTS = "celery RabbitMQ threads", ("amqpstorm", "pika")


def name_of(client: str, quorum: bool = False) -> str:
    """The name of fsdf over a client."""
    return f"fsdf RABBITMQ_{client.upper()} threading{' quorum' if quorum else ''}"


def raw_name(client: str, quorum: bool = False) -> str:
    """The name of the bare loop over a client."""
    return f"raw {client}{' quorum' if quorum else ''}"


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


def _raw(client: str, quorum: bool) -> Contestant:
    return Contestant(
        raw_name(client, quorum),
        client,
        "benchmarks.apps.raw_amqp_app",
        ("-m", "benchmarks.apps.raw_amqp_app"),
        "acknowledges per 100, confirms per 500",
        "1000",
        {"BENCH_CLIENT": client, "BENCH_QUORUM": f"{quorum:d}"},
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
    *(_raw(client, quorum) for client in CLIENTS for quorum in (False, True)),
    *(_layer(product) for product in ("fsdf celery", "celery")),
)


def rabbitmq(bench: Bench, run: int) -> None:
    """Measure everybody once, on a server of its own, so that none finds another one's queues."""
    bench = replace(bench, options=replace(bench.options, window=min(WINDOW, bench.options.window)))
    for one in bench.contestants(RABBIT):
        both = one.distribution == "fsdf" and one.app.endswith("fsdf_app")
        many = both or one.app.endswith("raw_amqp_app")
        actions = (*(["publish"] if both or not many else []), *(["publish_many"] if many else []))
        with own(RabbitMQ) as server:
            url = server.variables()["FSDF_TEST_RABBITMQ_URL"]
            measure(bench, "rabbitmq", one, run, url, actions)
