"""psycopg alone: claims 100 rows that nobody else has locked, runs them, deletes them.

The publisher inserts 500 at once. Bodies are as long as those of fsdf.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psycopg

from benchmarks.meter import hit

URL = os.environ["BENCH_REDIS_URL"]
CLAIMED, INSERTED = 100, 500
PAD = b" " * 110
TABLE = (
    "CREATE TABLE IF NOT EXISTS bench (id bigserial PRIMARY KEY, body bytea NOT NULL,"
    " leased_until timestamptz)"
)
CLAIM = (
    "UPDATE bench SET leased_until = clock_timestamp() + interval '30 s' WHERE id IN (SELECT id"
    " FROM bench WHERE leased_until IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)"
    " RETURNING id, body"
)


def _connected() -> psycopg.Connection[tuple[int, bytes]]:
    connection = psycopg.connect(URL, autocommit=True)
    connection.execute(TABLE)
    return connection


def publish_many(numbers: Iterable[int]) -> None:
    rows = [(b"%d" % n + PAD,) for n in numbers]
    with _connected() as connection, connection.cursor() as cursor:
        for first in range(0, len(rows), INSERTED):
            part = rows[first : first + INSERTED]
            with connection.transaction():
                cursor.executemany("INSERT INTO bench (body) VALUES (%s)", part)


def consume() -> None:
    with _connected() as connection:
        while True:
            found = connection.execute(CLAIM, (CLAIMED,)).fetchall()
            for _, body in sorted(found):
                hit(int(body))
            if found:
                ids = [id for id, _ in found]
                connection.execute("DELETE FROM bench WHERE id = ANY(%s)", (ids,))
            else:
                time.sleep(0.01)  # nothing wakes so bare a loop


if __name__ == "__main__":
    consume()
