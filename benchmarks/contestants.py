"""Who takes part, with which command, settings and prefetch, and how to see what they hold."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

__all__ = [
    "AT_LEAST",
    "CONTESTANTS",
    "RESULTS",
    "SLOTS",
    "Contestant",
    "fsdf_batches",
    "hash_length",
]

SLOTS = 50
RESULTS = 1  # a database apart, of those who ask for it
BIN = Path(sys.executable).parent
APPS = Path(__file__).resolve().parent / "apps"
Leased = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to run no-op tasks: a product with a broker and a pool.

    `leased` counts from the server what workers hold beyond the queue. `environment` values may
    contain {url}, {host}, {port}, {results} (the URL of a database of results) and {folder}.
    """

    name: str
    distribution: str
    app: str
    worker: tuple[str, ...]
    ack: str
    prefetch: str
    environment: Mapping[str, str] = field(default_factory=dict)
    leased: Leased | None = None
    slots: str = f"{SLOTS}"
    round_trip: bool = True
    server: bool = True  # uses Redis
    python: bool = False  # the worker is a script rather than a command
    queue: str = ""  # a list whose messages may be copied, of the stock of that name
    stock: str = ""

    def command(self) -> list[str]:
        """The worker's command line as a user would type it, with this environment's binaries."""
        if self.python:
            return [sys.executable, *self.worker]
        binary = BIN / self.worker[0]
        if binary.exists():
            return [str(binary), *self.worker[1:]]
        if self.worker[0] == "fsdf":  # a checkout that is not installed
            start = "from fsdf_engine.cli import main; raise SystemExit(main())"
            return [sys.executable, "-c", start, *self.worker[1:]]
        raise SystemExit(f"{self.worker[0]} is missing: pip install 'fsdf[bench]'")

    def variables(self, url: str, folder: Path, *, results: bool) -> dict[str, str]:
        """Its environment for this server."""
        parts = urlsplit(url)
        apart = parts._replace(path=f"/{RESULTS}").geturl()
        values = {
            "url": url, "host": parts.hostname, "port": parts.port, "results": apart,
            "folder": folder,
        }  # fmt: skip
        common = {"BENCH_REDIS_URL": url, "BENCH_RESULTS": "1" if results else "0"}
        own = {key: value.format(**values) for key, value in self.environment.items()}
        return {**common, **own}


def hash_length(key: str) -> Leased:
    return lambda client: client.hlen(key)


def _members(pattern: str) -> Leased:
    def count(client: Any) -> int:
        return sum(
            client.scard(key) if client.type(key) == b"set" else client.zcard(key)
            for key in client.scan_iter(pattern)
        )

    return count


def fsdf_batches(client: Any) -> int:
    """REDIS_ACK_ABLE keeps one hash per leased batch; the field count is what is still held."""
    return sum(client.hlen(key) for key in client.scan_iter("{*}:b:*"))


def _funboost_unacked(client: Any) -> int:
    where = client.connection_pool.connection_kwargs
    with redis.Redis(where["host"], where["port"], db=7) as other:  # its default database
        return sum(other.zcard(key) for key in other.scan_iter("*unack*", _type="zset"))


def _fsdf(broker: str, pool: str, ack: str) -> Contestant:
    # monkey-patching has to come before everything else, and a child imports the main script
    script = pool in ("GEVENT", "EVENTLET", "PROCESSES")
    file = str(APPS / "fsdf_app.py")
    short = {"REDIS": "REDIS", "REDIS_ACK_ABLE": "REDIS_ACK_ABLE", "PERSISTQUEUE": "SQLite"}
    return Contestant(
        f"fsdf {short[broker]} {pool.lower()}",
        "fsdf",
        "benchmarks.apps.fsdf_app",
        (file,) if script else ("fsdf", "run", file),
        ack,
        "adaptive up to 500 (its default)",
        {
            "BENCH_BROKER": broker,
            "BENCH_POOL": pool,
            "BENCH_SLOTS": "2" if pool == "PROCESSES" else f"{SLOTS}",
            "FSDF_REDIS_URL": "{url}",
            "FSDF_SQLITE_PATH": "{folder}/queue.db",
        },
        fsdf_batches if broker == "REDIS_ACK_ABLE" else None,
        slots="2 children" if pool == "PROCESSES" else f"{SLOTS}",
        server=broker != "PERSISTQUEUE",
        python=script,
    )


def _celery(pool: str) -> Contestant:
    options = ("-P", pool, "-c", f"{SLOTS}", "-l", "ERROR")
    quick = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return Contestant(
        f"celery {pool}",
        "celery",
        "benchmarks.apps.celery_app",
        ("celery", "-A", "benchmarks.apps.celery_app", "worker", *options, *quick),
        "at least once (task_acks_late)",
        f"worker_prefetch_multiplier=64: {64 * SLOTS}",
        {"BENCH_PREFETCH": "64"},
        hash_length("unacked"),
    )


AT_LEAST, AT_MOST = "at least once", "at most once"
POOLS = ("THREADING", "GEVENT", "EVENTLET", "ASYNC", "PROCESSES")

CONTESTANTS: tuple[Contestant, ...] = (
    *(_fsdf("REDIS_ACK_ABLE", pool, AT_LEAST) for pool in POOLS),
    *(_fsdf("REDIS", pool, AT_MOST) for pool in POOLS),
    _fsdf("PERSISTQUEUE", "THREADING", f"{AT_LEAST}; WAL, synchronous=NORMAL"),
    *(_celery(pool) for pool in ("threads", "gevent", "eventlet")),
    Contestant(
        "funboost REDIS_ACK_ABLE threading",
        "funboost",
        "benchmarks.apps.funboost_app",
        (str(APPS / "funboost_app.py"),),
        AT_LEAST,
        "pull_msg_batch_size=100 (its default)",
        {
            "BENCH_PREFETCH": "100",
            "BENCH_REDIS_HOST": "{host}",
            "BENCH_REDIS_PORT": "{port}",
            "LOG_PATH": "{folder}",
        },
        _funboost_unacked,
        python=True,
    ),
    Contestant(
        "dramatiq",
        "dramatiq",
        "benchmarks.apps.dramatiq_app",
        ("dramatiq", "benchmarks.apps.dramatiq_app", "-p", "1", "-t", f"{SLOTS}"),
        AT_LEAST,
        "dramatiq_queue_prefetch=1000",
        {"dramatiq_queue_prefetch": "1000"},
        _members("dramatiq:__acks__*"),
    ),
    Contestant(
        "huey",
        "huey",
        "benchmarks.apps.huey_app",
        ("huey_consumer", "benchmarks.apps.huey_app.huey", "-k", "thread", "-w", f"{SLOTS}", "-q"),
        AT_MOST + " (it has no acknowledgement)",
        "none",
    ),
    Contestant(
        "taskiq",
        "taskiq",
        "benchmarks.apps.taskiq_app",
        (
            "taskiq",
            "worker",
            "benchmarks.apps.taskiq_app:broker",
            "-w",
            "1",
            "--max-async-tasks",
            f"{SLOTS}",
            "--max-prefetch",
            "100",
            "--ack-type",
            "when_executed",
            "--log-level",
            "WARNING",
        ),
        AT_LEAST,
        "--max-prefetch 100, xread_count 100",
        leased=lambda client: client.xpending("bench", "taskiq")["pending"],
    ),
    Contestant(
        "rq",
        "rq",
        "benchmarks.apps.rq_app",
        (
            "rq",
            "worker-pool",
            "bench",
            "-n",
            f"{SLOTS}",
            "-q",
            "-u",
            "{url}",
            "-w",
            "rq.worker.SimpleWorker",
        ),
        "started registry; an abandoned job fails",
        "none",
        leased=lambda client: client.zcard("rq:wip:bench"),
        slots=f"{SLOTS} processes (SimpleWorker: no fork per job)",
    ),
)
