"""The tables of results, as Celery has them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from ... import states
from .session import ResultModelBase

__all__ = ("Task", "TaskExtended", "TaskSet")
DialectSpecificInteger = sa.Integer().with_variant(sa.BigInteger, "mssql")


def _get_utc_now() -> datetime:
    return datetime.now(timezone.utc)


def _or_none(row: Any, name: str) -> Any:
    """Return a column, None where the table, made by an older version, has not got it."""
    try:
        return getattr(row, name)
    except Exception:  # of the database, whatever it calls that
        return None


class _UtcTime(sa.TypeDecorator):
    """A time in UTC without its zone; databases in another one would store their own time."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is None or value.tzinfo is None:
            return value
        return value.astimezone(timezone.utc).replace(tzinfo=None)


class _Named:
    """A table that can be given another name and schema."""

    @classmethod
    def configure(cls, schema: str | None = None, name: str | None = None) -> None:
        """Let the table be another one."""
        table: Any = cls
        table.__table__.schema = schema
        table.id.default.schema = schema
        table.__table__.name = name or table.__tablename__
        for index in table.__table__.indexes:  # their names are the schema's, too
            index.name = f"ix_{table.__table__.name}_date_done"


class Task(ResultModelBase, _Named):
    """What is stored of one task."""

    __tablename__: Any = "celery_taskmeta"
    __table_args__: Any = {"sqlite_autoincrement": True}

    id = sa.Column(
        DialectSpecificInteger, sa.Sequence("task_id_sequence"),
        primary_key=True, autoincrement=True,
    )  # fmt: skip
    task_id = sa.Column(sa.String(155), unique=True)
    status = sa.Column(sa.String(50), default=states.PENDING)
    result = sa.Column(sa.LargeBinary, nullable=True)
    date_done = sa.Column(
        _UtcTime, default=_get_utc_now, onupdate=_get_utc_now, nullable=True, index=True
    )
    traceback = sa.Column(sa.Text, nullable=True)
    children = sa.Column(sa.LargeBinary, nullable=True)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Return what is in the row."""
        names = ("task_id", "status", "result", "traceback", "date_done")
        return {**{n: getattr(self, n) for n in names}, "children": _or_none(self, "children")}

    def __repr__(self) -> str:
        return f"<Task {self.task_id} state: {self.status}>"


class TaskExtended(Task):
    """What is stored of one task with `result_extended`."""

    __tablename__ = "celery_taskmeta"
    __table_args__ = {"sqlite_autoincrement": True, "extend_existing": True}

    name = sa.Column(sa.String(155), nullable=True)
    args = sa.Column(sa.LargeBinary, nullable=True)
    kwargs = sa.Column(sa.LargeBinary, nullable=True)
    worker = sa.Column(sa.String(155), nullable=True)
    retries = sa.Column(sa.Integer, nullable=True)
    queue = sa.Column(sa.String(155), nullable=True)
    stamps = sa.Column(sa.LargeBinary, nullable=True)

    def to_dict(self) -> dict[str, Any]:
        """Return what is in the row."""
        names = ("name", "args", "kwargs", "worker", "retries", "queue")
        more = {name: getattr(self, name) for name in names}
        return {**super().to_dict(), **more, "stamps": _or_none(self, "stamps")}


class TaskSet(ResultModelBase, _Named):
    """A saved group."""

    __tablename__ = "celery_tasksetmeta"
    __table_args__ = {"sqlite_autoincrement": True}

    id = sa.Column(
        DialectSpecificInteger, sa.Sequence("taskset_id_sequence"),
        autoincrement=True, primary_key=True,
    )  # fmt: skip
    taskset_id = sa.Column(sa.String(155), unique=True)
    result = sa.Column(sa.LargeBinary, nullable=True)
    date_done = sa.Column(_UtcTime, default=_get_utc_now, nullable=True, index=True)

    def __init__(self, taskset_id: str, result: Any) -> None:
        self.taskset_id = taskset_id  # type: ignore[assignment]
        self.result = result

    def to_dict(self) -> dict[str, Any]:
        """Return what is in the row."""
        return {name: getattr(self, name) for name in ("taskset_id", "result", "date_done")}

    def __repr__(self) -> str:
        return f"<TaskSet: {self.taskset_id}>"
