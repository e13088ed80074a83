"""Rows that another program may put into the tables of the SQLite broker."""

from __future__ import annotations

import sqlite3

from fsdf_engine.brokers.sqlite_file import path_of
from fsdf_engine.contracts import Broker

__all__ = ["spoil_table"]

# What another program may INSERT: columns, and their values in SQL.
ODD_ROWS = (
    ("body", "123"), ("body", "1.5"), ("body", "''"), ("body", "CAST(x'7b7dff' AS TEXT)"),
    ("body", "CAST(x'22eda08022' AS TEXT)"), ("body", "x'00ff'"), ("body", "'{}' || char(0)"),
    ("id", "CAST(x'ff' AS TEXT)"), ("id", "x'ff'"), ("id", "5"), ("id", "''"),
    ("priority", "'high'"), ("priority", "99"), ("priority", "-1"), ("priority", "1.5"),
    ("priority", "x'ff'"), ("due", "'soon'"), ("due", "-5"), ("due", "NULL"), ("due", "x'ff'"),
    ("due", "-9e999"), ("due", "CAST(x'ff' AS TEXT)"), ("state", "'junk'"), ("state", "'[1]'"),
    ("state", "7"), ("state", "0"), ("state", "''"), ("state", "x'ff'"),
    ("state", """'{"attempt": "x"}'"""), ("headers", "'{'"), ("headers", "'[]'"),
    ("headers", """'{"a": 1}'"""), ("headers", "5"), ("headers", "''"), ("headers", "x'ff'"),
    ("deliveries", "'x'"), ("deliveries", "NULL"), ("deliveries", "1.5"), ("published", "'x'"),
    ("published", "NULL"), ("published", "x'ff'"), ("lease", "77"), ("lease", "'x'"),
)  # fmt: skip


def spoil_table(broker: Broker, queue: str) -> int:
    """Put one of each kind into the queue's file; return how many of its messages they are."""
    broker.check()
    db = sqlite3.connect(path_of(broker.url), isolation_level=None)
    for n, (columns, values) in enumerate(ODD_ROWS):
        body = values if columns == "body" else f"'{{\"odd\": {n}}}', {values}"
        names = columns if columns == "body" else f"body, {columns}"
        db.execute(f"INSERT INTO message (queue, {names}) VALUES (?, {body})", (queue,))
    lease = "INSERT INTO lease (ends, queue, count, seqs) VALUES (?, ?, ?, ?)"
    for ends, count, seqs in (
        (1, 0, "junk"),
        (1, 0, ""),
        (1, 0, "[[1]"),
        (1, 0, "{}"),
        ("x", "y", "z"),
    ):
        db.execute(lease, (ends, queue, count, seqs))
    db.execute("INSERT INTO message (queue, body) VALUES (CAST(? AS BLOB), '{}')", (queue,))
    db.execute("INSERT INTO message (queue, body) VALUES (CAST(x'ff' AS TEXT), '{}')")
    db.close()
    return len(ODD_ROWS)
