"""PostgreSQL: a worker and a publisher of fsdf, of procrastinate, and a bare loop that claims rows.

Each is measured also while another connection holds a snapshot open, as a long report or a dump
does: what has been deleted since then stays in the tables and their indexes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from scripts.servers import PostgreSQL

from ..bench import Bench
from ..contestants import APPS, AT_LEAST, SLOTS, Contestant
from ..service import own
from .filled import WINDOW, measure

__all__ = ["FSDF_SQL", "PROCRASTINATE", "RAW_SQL", "SNAPSHOT", "SQL", "sql"]

FSDF_SQL, PROCRASTINATE, RAW_SQL = "fsdf SQLACHEMY threading", "procrastinate", "raw psycopg"
URL = "FSDF_TEST_POSTGRESQL_URL"
SNAPSHOT = ", a snapshot is held open"

SQL: tuple[Contestant, ...] = (
    Contestant(
        FSDF_SQL,
        "fsdf",
        "benchmarks.apps.fsdf_app",
        ("fsdf", "run", str(APPS / "fsdf_app.py")),
        AT_LEAST,
        "adaptive up to 500 (its default)",
        {"BENCH_BROKER": "SQLACHEMY", "BENCH_POOL": "THREADING", "FSDF_SQLALCHEMY_URL": "{url}"},
        server=False,
    ),
    Contestant(
        PROCRASTINATE,
        "procrastinate",
        "benchmarks.apps.procrastinate_app",
        ("procrastinate", "-a", "benchmarks.apps.procrastinate_app.app", "worker", "-q", "bench",
         "-c", f"{SLOTS}", "--delete-jobs", "always"),
        "at least once, where stalled jobs are retried",
        "as many as there are slots",
        server=False,
    ),
    Contestant(
        RAW_SQL,
        "psycopg",
        "benchmarks.apps.raw_sql_app",
        ("-m", "benchmarks.apps.raw_sql_app"),
        "claims 100, deletes 100",
        "100",
        slots="1 loop",
        server=False,
        python=True,
    ),
)  # fmt: skip


@contextlib.contextmanager
def _snapshot(url: str) -> Iterator[None]:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        yield


def sql(bench: Bench, run: int) -> None:
    """Measure everybody twice, each time on a server of its own."""
    bench = replace(bench, options=replace(bench.options, window=min(WINDOW, bench.options.window)))
    for one in bench.contestants(SQL):
        actions = ("publish_many",) if one.name == RAW_SQL else ("publish", "publish_many")
        with own(PostgreSQL) as server:
            measure(bench, "sql", one, run, server.variables()[URL], actions)
        held = replace(one, name=one.name + SNAPSHOT)
        with own(PostgreSQL) as server:
            url = server.variables()[URL]
            measure(bench, "sql", held, run, url, (), _snapshot(url))
