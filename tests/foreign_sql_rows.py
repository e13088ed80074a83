"""Rows that another program may put into the tables of the SQL broker."""

from __future__ import annotations

from fsdf_engine.brokers.sql import SqlBroker
from fsdf_engine.brokers.sql_session import Session

__all__ = ["spoil_database"]

# What another program may INSERT: a column, and its value in SQL.
ODD_ROWS = (
    ("body", "'123'"), ("body", "''"), ("body", "'null'"), ("body", "{00ff}"), ("body", "{7b7dff}"),
    ("id", "''"), ("id", "'漢'"), ("id", "'a b'"), ("priority", "9"), ("priority", "-9"),
    ("priority", "-1"), ("due", "0.001"), ("state", "'junk'"), ("state", "'[1]'"), ("state", "'7'"),
    ("state", "''"), ("state", """'{"attempt": "x"}'"""), ("headers", "'{'"), ("headers", "'[]'"),
    ("headers", """'{"a": 1}'"""), ("headers", "'5'"), ("headers", "''"), ("published", "-5"),
    ("published", "1e300"), ("spot", "-9000000000000000000"), ("spot", "9000000000000000000"),
    ("seq", "-77"), ("seq", "9000000000000000"),
)  # fmt: skip
# What the tables' constraints refuse, as no fetch would find it, or read it.
REFUSED = (
    ("due", "-5"), ("due", "1e300"), ("due", "NULL"), ("lease", "77"), ("deliveries", "-1"),
    ("deliveries", "NULL"), ("priority", "99"), ("priority", "NULL"), ("id", "NULL"),
    ("body", "NULL"), ("queue", "''"), ("spot", "NULL"), ("published", "NULL"),
)  # fmt: skip


def spoil_database(broker: SqlBroker, queue: str) -> int:
    """Put one of each kind into the queue; return how many of its messages they are."""

    def spoil(session: Session) -> None:
        def insert(n: int, column: str, value: str) -> None:
            if value.startswith("{"):
                value = f"decode('{value[1:-1]}', 'hex')" if bytea else f"x'{value[1:-1]}'"
            given = {"queue": f"'{queue}'", "body": f"'{{\"odd\": {n}}}'", column: value}
            sql = f"INSERT INTO @message ({','.join(given)}) VALUES ({','.join(given.values())})"
            session.rows(broker.database.sql(sql))

        bytea = broker.database.is_postgresql
        session.rows("BEGIN")
        for n, (column, value) in enumerate(ODD_ROWS):
            insert(n, column, value)
        for token, count, seqs in ((1, 0, "junk"), (2, 0, ""), (3, -5, "[[1]"), (4, -7, "9" * 40)):
            session.rows(broker.database.sql(
                f"INSERT INTO @lease (token, queue, ends, count, seqs)"
                f" VALUES ({token}, '{queue}', 1, {count}, '{seqs}')"
            ))  # fmt: skip
        session.rows("COMMIT")
        for n, (column, value) in enumerate(REFUSED):
            try:
                insert(n, column, value)
            except Exception:
                continue
            raise AssertionError(f"{column} = {value} was taken")

    broker.database.run(spoil)
    return len(ODD_ROWS)
