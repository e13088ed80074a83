"""From raw rows to a document: medians, ratios, who ran with what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .bench import Bench
from .contestants import CONTESTANTS
from .scenarios.layer import CASES, DELAY, LAYER, PRODUCTS, WAITED, Case
from .scenarios.local import PERSIST_QUEUES
from .scenarios.rabbitmq import CELERY, CLIENTS, RABBIT, layer_name, name_of, raw_name
from .scenarios.sql import FSDF_SQL, PROCRASTINATE, RAW_SQL, SNAPSHOT, SQL

__all__ = [
    "LAYER_RATIOS",
    "RABBIT_RATIOS",
    "RATIOS",
    "SQL_HEADS",
    "SQL_RATIOS",
    "Rows",
    "document",
    "median",
    "ratios",
    "surroundings",
]

Rows = list[dict[str, Any]]
PACKAGES = (
    "fsdf", "redis", "hiredis", "orjson", "celery", "kombu", "funboost", "dramatiq", "huey",
    "taskiq", "taskiq-redis", "rq", "persist-queue", "gevent", "eventlet", "Django", "pika",
    "AMQPStorm", "procrastinate", "psycopg", "SQLAlchemy",
)  # fmt: skip


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "checkout" if package == "fsdf" else "absent"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def surroundings(bench: Bench) -> dict[str, Any]:
    """Machine, versions and the configuration of every contestant."""
    return {
        "machine": {
            "python": platform.python_version(),
            "redis_server": bench.server.version,
            "redis_options": bench.server.configuration,
            "cores": os.cpu_count(),
            "processor": _processor(),
            "kernel": platform.release(),
            "load": os.getloadavg()[0],
        },
        "versions": {package: _version(package) for package in PACKAGES},
        "contestants": [
            {
                "name": one.name,
                "worker": " ".join(
                    _shown(part) for part in (*(["python"] if one.python else []), *one.worker)
                ),
                "slots": one.slots,
                "ack": one.ack,
                "prefetch": one.prefetch,
                "environment": dict(one.environment),
            }
            for one in (*CONTESTANTS, *LAYER, *PERSIST_QUEUES, *RABBIT, *SQL)
        ],
    }


def _shown(part: str) -> str:
    return part[part.index("benchmarks/") :] if "benchmarks/" in part else part


def _names(rows: Rows, scenario: str) -> list[str]:
    return list(dict.fromkeys(row["name"] for row in rows if row["scenario"] == scenario))


def _values(rows: Rows, scenario: str, name: str, key: str) -> list[float]:
    return [
        row[key]
        for row in rows
        if row["scenario"] == scenario and row["name"] == name and row.get(key) is not None
    ]


def median(rows: Rows, scenario: str, name: str, key: str) -> float | None:
    """The median over the runs; None if it was not measured."""
    values = _values(rows, scenario, name, key)
    return statistics.median(values) if values else None


def _format(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _spread(values: list[float]) -> str:
    return f"{min(values):,.0f} .. {max(values):,.0f}" if len(values) > 1 else ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(rows: Rows, scenario: str, columns: dict[str, tuple[str, int]], spread: bool) -> str:
    """A row per name, the medians of `columns` (key -> heading, digits), the best first."""
    first = next(iter(columns))
    names = _names(rows, scenario)
    names.sort(key=lambda name: -(median(rows, scenario, name, first) or 0))
    if not first.startswith("rate"):
        names.reverse()
    head = ["", *(heading for heading, _ in columns.values()), *(["range"] if spread else [])]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for name in names:
        cells = [
            _format(median(rows, scenario, name, key), digits)
            for key, (_, digits) in columns.items()
        ]
        values = _values(rows, scenario, name, first)
        if not values:
            cells[0] = "failed"
        lines.append(_line([name, *cells, *([_spread(values)] if spread else [])]))
    return "\n".join(lines)


FSDF = "fsdf REDIS_ACK_ABLE"
THREADS, MANY, SQLITE = (
    f"{FSDF} threading",
    f"{FSDF} threading, publish_many",
    "fsdf SQLite threading",
)
Pair = tuple[str, str, str, str, str]  # what, scenario, key, one side, other side
RATIOS: tuple[Pair, ...] = (
    ("consume, threads; Celery threads", "consume", "rate", THREADS, "celery threads"),
    ("consume, gevent; Celery gevent", "consume", "rate", f"{FSDF} gevent", "celery gevent"),
    ("consume, eventlet; Celery eventlet", "consume", "rate", f"{FSDF} eventlet",
     "celery eventlet"),
    ("consume, asyncio; Celery threads", "consume", "rate", f"{FSDF} async", "celery threads"),
    ("consume, threads; funboost", "consume", "rate", THREADS, "funboost REDIS_ACK_ABLE threading"),
    ("consume, threads; dramatiq", "consume", "rate", THREADS, "dramatiq"),
    ("consume, threads; huey (at most once)", "consume", "rate", THREADS, "huey"),
    ("consume, asyncio; taskiq", "consume", "rate", f"{FSDF} async", "taskiq"),
    ("consume, threads; rq", "consume", "rate", THREADS, "rq"),
    ("consume, SQLite; persist-queue as shipped", "consume", "rate", SQLITE,
     PERSIST_QUEUES[1].name),
    ("consume, SQLite; persist-queue, same durability", "consume", "rate", SQLITE,
     PERSIST_QUEUES[0].name),
    ("`push`; redis-py's LPUSH of the same bytes", "publish", "rate", THREADS,
     "raw redis-py LPUSH"),
    ("`push`; Celery's `delay`", "publish", "rate", THREADS, "celery threads"),
    ("`push_many`; `push`", "publish", "rate", MANY, THREADS),
    ("`push`, SQLite; persist-queue's `put` as shipped", "publish", "rate", SQLITE,
     PERSIST_QUEUES[1].name),
    ("`push`, SQLite; persist-queue's `put`, same durability", "publish", "rate", SQLITE,
     PERSIST_QUEUES[0].name),
    ("two worker processes; one; 300 us of CPU a task", "processes", "rate",
     f"{THREADS}, 300 us, 2 processes", f"{THREADS}, 300 us, 1 process"),
    ("consume, processes, results; without", "consume", "rate", f"{FSDF} processes, results",
     f"{FSDF} processes"),
    ("consume, threads, results; without", "consume", "rate", f"{THREADS}, results", THREADS),
    ("1,000,000 messages waiting; 100,000", "backlog", "rate", f"{THREADS}, 1,000,000 waiting",
     f"{THREADS}, 100,000 waiting"),
    ("round trip in ms, median; Celery's `delay().get()`", "round_trip", "p50", THREADS,
     "celery threads"),
)  # fmt: skip


def _layer_pair(case: Case, scenario: str, key: str) -> Pair:
    ours, theirs = (f"{product} {case.name}" for product in PRODUCTS)
    return (case.name, scenario, key, ours, theirs)


LAYER_RATIOS: tuple[Pair, ...] = (
    *(_layer_pair(case, "layer", "rate") for case in (*CASES, DELAY)),
    *(_layer_pair(case, "layer_wait", "p50") for case in WAITED),
)
LAYER_ABOUT = (
    "A project that imports `celery`, run by Celery and, unchanged, by `fsdf celery`: same file "
    "(`benchmarks/apps/layer_app.py`), settings, pool, slots and acknowledgement. Measured apart, "
    "in windows of about 2 s; the head of docs/benchmarks.md says when."
)


def _rabbit_pairs(client: str, quorum: bool) -> tuple[Pair, ...]:
    ours, raw, more = name_of(client, quorum), raw_name(client, quorum), ", quorum" * quorum
    sent = f"{ours}, publish_many"
    return (
        (f"consume by {client}{more}; Celery", "rabbitmq", "rate", ours, CELERY),
        (f"consume by {client}{more}; a bare loop over it", "rabbitmq", "rate", ours, raw),
        (f"`push_many` by {client}{more}; Celery's `delay`", "rabbitmq_publish", "rate",
         sent, f"{CELERY}, publish"),
        (f"`push_many` by {client}{more}; a bare loop over it", "rabbitmq_publish", "rate",
         sent, f"{raw}, publish_many"),
    )  # fmt: skip


SERVERS_ABOUT = (
    "RabbitMQ and PostgreSQL, each time a server of its own. Queues of RabbitMQ are quorum, as "
    "fsdf makes them, where that is said, else classic, as Celery makes them; Celery's `delay` is "
    "not confirmed. Measured apart, in windows of 2 to 35 s; docs/benchmarks.md tells each, and "
    "when it was."
)
RABBIT_RATIOS: tuple[Pair, ...] = (
    *(pair for q in (True, False) for client in CLIENTS for pair in _rabbit_pairs(client, q)),
    ("`fsdf celery`, late, a project's worker; `celery`", "rabbitmq", "rate",
     layer_name("fsdf celery"), layer_name("celery")),
)  # fmt: skip
SQL_RATIOS: tuple[Pair, ...] = (
    *(
        (f"consume{held}; {other}", "sql", "rate", FSDF_SQL + held, name + held)
        for other, name in (("procrastinate", PROCRASTINATE), ("a bare loop", RAW_SQL))
        for held in ("", SNAPSHOT)
    ),
    *(
        (f"`{ours}`; procrastinate's `{theirs}`", "sql_publish", "rate",
         f"{FSDF_SQL}, {action}", f"{PROCRASTINATE}, {action}")
        for action, ours, theirs in (
            ("publish", "push", "defer_async"), ("publish_many", "push_many", "batch_defer_async"),
        )
    ),
    ("`push_many`; a bare loop", "sql_publish", "rate", f"{FSDF_SQL}, publish_many",
     f"{RAW_SQL}, publish_many"),
)  # fmt: skip
SQL_HEADS = ("PostgreSQL, per second", "fsdf", "the other")
RABBIT_HEADS = ("RabbitMQ, per second", "fsdf", "the other")
LAYER_HEADS = ("per second; where something is waited for, ms", "`fsdf celery`", "`celery`")


def ratios(
    rows: Rows,
    pairs: tuple[Pair, ...] = RATIOS,
    heads: tuple[str, str, str] = ("per second where not said otherwise", "fsdf", "the other"),
) -> str:
    """The table of what is compared with what; empty if nothing was measured for it."""
    lines = [_line([f"medians, {heads[0]}", *heads[1:], "ratio"]), "| --- | ---: | ---: | ---: |"]
    for what, scenario, key, one, other in pairs:
        above = median(rows, scenario, one, key)
        below = median(rows, scenario, other, key)
        if above is not None and below:
            digits = 0 if key == "rate" or below >= 100 else 3
            ratio = above / below
            shown = f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"
            lines.append(_line([what, _format(above, digits), _format(below, digits), shown]))
    return "\n".join(lines) if len(lines) > 2 else ""


def _failures(rows: Rows) -> str:
    return "\n".join(
        f"- {row['scenario']}, {row['name']}, run {row['run']}: {row['failed'].partition(':')[0]}"
        for row in rows
        if "failed" in row
    )


def _configuration(contestants: list[dict[str, Any]]) -> str:
    lines = [_line(["", "worker", "slots", "delivery", "prefetch"]), _line(["---"] * 5)]
    for one in contestants:
        cells = [one["name"], f"`{one['worker']}`", one["slots"], one["ack"], one["prefetch"]]
        lines.append(_line(cells))
    return "\n".join(lines)


SECTIONS: tuple[tuple[str, str, str, dict[str, tuple[str, int]], bool], ...] = (
    ("Consume", "consume",
     "No-op task, results off where they are not said, one worker, full queue; messages per second "
     "from the first run to the last. Leased is the most seen held at once, where the server shows "
     "it.",
     {"rate": ("per second", 0), "worker_us": ("worker, us CPU", 1),
      "server_us": ("Redis, us CPU", 1), "rss": ("RSS, MB", 0), "leased": ("leased", 0),
      "messages": ("messages", 0), "window": ("window, s", 1)}, True),
    ("Publish", "publish", "One process, one thread, results off.",
     {"rate": ("per second", 0), "client_us": ("client, us CPU", 1)}, True),
    ("Round trip", "round_trip", "Publish and wait for the result, one at a time; milliseconds.",
     {"p50": ("p50", 2), "p99": ("p99", 2)}, False),
    ("A Celery project", "layer",
     "Workers as under Consume, in windows of about 2 s; `delay` is a client's. Late: acknowledged "
     "when a task has run; early: before. Results are in Redis where they are said, else off.",
     {"rate": ("per second", 0), "worker_us": ("worker, us CPU", 1),
      "client_us": ("client, us CPU", 1), "server_us": ("Redis, us CPU", 1), "rss": ("RSS, MB", 0),
      "leased": ("leased", 0), "messages": ("messages", 0), "window": ("window, s", 1)}, True),
    ("A Celery project, waiting", "layer_wait",
     "From the call to the result, by a worker with `-P threads -c 50`; milliseconds.",
     {"p50": ("p50", 2), "p99": ("p99", 2), "count": ("measured", 0)}, False),
    ("RabbitMQ", "rabbitmq",
     "Workers as under Consume, started on a full queue, in the windows that are told. Queues are "
     "quorum, as fsdf makes them, where that is said; the others classic, as Celery makes them.",
     {"rate": ("per second", 0), "worker_us": ("worker, us CPU", 1), "rss": ("RSS, MB", 0),
      "messages": ("messages", 0), "window": ("window, s", 1)}, True),
    ("RabbitMQ, publish", "rabbitmq_publish",
     "One process, one thread. fsdf's pushes are confirmed, one by one or 500 at once; Celery's "
     "`delay` is not.",
     {"rate": ("per second", 0), "client_us": ("client, us CPU", 1)}, True),
    ("PostgreSQL", "sql",
     "Workers as under RabbitMQ. A snapshot is held open: by another connection, from before the "
     "worker's start. The bare loop claims and deletes 100 rows at once.",
     {"rate": ("per second", 0), "worker_us": ("worker, us CPU", 1), "rss": ("RSS, MB", 0),
      "messages": ("messages", 0), "window": ("window, s", 1)}, True),
    ("PostgreSQL, publish", "sql_publish", "One process, one thread.",
     {"rate": ("per second", 0), "client_us": ("client, us CPU", 1)}, True),
    ("Idle", "idle", "A worker with nothing to do, for 10 s; one run.",
     {"cpu": ("CPU, %", 2), "commands": ("Redis commands/s", 2), "rss": ("RSS, MB", 1),
      "processes": ("processes", 0)}, False),
    ("Wake-up", "wake",
     "From another process's push to the task's first line, 200 times; milliseconds.",
     {"p50": ("p50", 2), "p99": ("p99", 2)}, False),
    ("Processes", "processes", "A task of 300 us of CPU.",
     {"rate": ("per second", 0), "worker_us": ("worker, us CPU", 0)}, True),
    ("Backlog", "backlog", "The first 100,000 messages of a long and of a short queue.",
     {"rate": ("per second", 0), "window": ("window, s", 1)}, True),
    ("qps", "qps",
     "Starts at the function's first line: the rate over 30 s and its error; the fullest second of "
     "all that slide over it.",
     {"rate": ("starts per second", 3), "error": ("error, %", 3), "most": ("fullest second", 0)},
     False),
)  # fmt: skip


def document(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    rows, machine = report["rows"], report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    options = report["options"]
    parts = [
        "# Benchmarks",
        f"`{report['command']}`, {report['started'][:16]} UTC, {report['minutes']} minutes; medians"
        f" of up to {options['runs']} interleaved runs (a row without a range was measured once),"
        f" windows of about {options['window']:g} s. Python "
        f"{machine['python']}, Redis {machine['redis_server']} (`{machine['redis_options']}`), "
        f"{machine['cores']} cores shared with Redis ({machine['processor']}). {versions}.",
        "Compare within one table: machines drift. The raw numbers are in `benchmarks/results/`.",
    ]
    if text := ratios(rows):
        parts += ["## Ratios", text]
    if text := ratios(rows, LAYER_RATIOS, LAYER_HEADS):
        parts += ["## Ratios, a Celery project", LAYER_ABOUT, text]
    if text := ratios(rows, RABBIT_RATIOS, RABBIT_HEADS):
        parts += ["## Ratios, RabbitMQ", text]
    if text := ratios(rows, SQL_RATIOS, SQL_HEADS):
        parts += ["## Ratios, PostgreSQL", text]
    for title, scenario, about, columns, spread in SECTIONS:
        if _names(rows, scenario):
            parts += [f"## {title}", about, _table(rows, scenario, columns, spread)]
    parts += ["## Configuration", _configuration(report["contestants"])]
    if text := _failures(rows):
        parts += ["## Failed", text]
    return "\n\n".join(parts) + "\n"
