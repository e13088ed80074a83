"""Connections to the database, and its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.utils.compat import register_after_fork  # type: ignore[attr-defined]
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError
from sqlalchemy.orm import declarative_base, sessionmaker
from sqlalchemy.pool import NullPool

from ..._upward import LateModule
from ...utils.log import get_logger
from ...utils.time import get_exponential_backoff_interval
from .driver import other_driver, patient

__all__ = ("SessionManager", "never_connected")
ResultModelBase = declarative_base()
PREPARE_MODELS_MAX_RETRIES = 10
logger = get_logger(__name__)
_base = LateModule("backends.base")


def never_connected(error: BaseException) -> bool:
    """Say whether an error is that a connection could not be made: it belongs to no statement."""
    return isinstance(error, DBAPIError) and error.statement is None


def _after_fork_cleanup_session(session: SessionManager) -> None:
    session._after_fork()


class SessionManager:
    """Makes sessions; in a forked child of engines that keep connections, elsewhere of others."""

    def __init__(self, engine_callback: Callable[[Any], Any] | None = None) -> None:
        self._engines: dict[str, Any] = {}
        self._loose: dict[str, Any] = {}  # that keep no connection, which a fork would share
        self._sessions: dict[str, Any] = {}
        self.forked = False
        self.prepared = False
        self.engine_callback = engine_callback
        if register_after_fork is not None:
            register_after_fork(self, _after_fork_cleanup_session)

    def _after_fork(self) -> None:
        self.forked = True

    def get_engine(self, dburi: str, **kwargs: Any) -> Any:
        """Return SQLAlchemy's engine of a URL."""
        if not self.forked:
            if dburi not in self._loose:
                kwargs = {
                    key: value
                    for key, value in kwargs.items()
                    if not key.startswith("pool") and key not in ("max_overflow", "echo_pool")
                }
                self._loose[dburi] = self._made(dburi, poolclass=NullPool, **kwargs)
            return self._loose[dburi]
        if dburi not in self._engines:
            self._engines[dburi] = self._made(dburi, **kwargs)
        return self._engines[dburi]

    def _made(self, dburi: str, **kwargs: Any) -> Any:
        kwargs = patient(dburi, kwargs)
        try:
            engine = create_engine(dburi, **kwargs)
        except (ArgumentError, ImportError) as error:
            engine = create_engine(other_driver(dburi, error), **kwargs)
        if self.engine_callback is not None:
            self.engine_callback(engine)
        return engine

    def create_session(
        self, dburi: str, short_lived_sessions: bool = False, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Return the engine of a URL, and what makes its sessions."""
        engine = self.get_engine(dburi, **kwargs)
        if not self.forked:
            return engine, sessionmaker(bind=engine)
        if short_lived_sessions or dburi not in self._sessions:
            self._sessions[dburi] = sessionmaker(bind=engine)
        return engine, self._sessions[dburi]

    def invalidate(self, dburi: str) -> None:
        """Let go of a URL's connections."""
        self._sessions.pop(dburi, None)
        if (engine := self._engines.pop(dburi, None)) is not None:
            engine.dispose()

    def prepare_models(self, engine: Any) -> None:
        """Create the tables that are not there, once. Blocks.

        Another process may do so at the same time: then it fails here, and the next try finds them.
        """
        if self.prepared:
            return
        for retries in range(PREPARE_MODELS_MAX_RETRIES + 1):
            try:
                ResultModelBase.metadata.create_all(engine)
                break
            except DatabaseError as error:
                if retries == PREPARE_MODELS_MAX_RETRIES or never_connected(error):
                    raise
                pause = get_exponential_backoff_interval(10, retries, 1000, True)
                _base.time.sleep(pause / 1000)  # others make the tables at the same time
        self._migrate_missing_columns(engine)
        self.prepared = True

    def _migrate_missing_columns(self, engine: Any) -> None:
        """Add columns that tables made by older versions have not got; told if that fails."""
        try:
            found = inspect(engine)
            for table in ResultModelBase.metadata.tables.values():
                name, schema = table.name, table.schema
                if not found.has_table(name, schema=schema):
                    continue
                there = {column["name"] for column in found.get_columns(name, schema=schema)}
                for column in table.columns:
                    if column.name not in there and column.nullable:
                        self._add_column(engine, table, column)
        except Exception as error:
            logger.warning("Failed to inspect or migrate database tables: %s", error)

    def _add_column(self, engine: Any, table: Any, column: Any) -> None:
        preparer = engine.dialect.identifier_preparer
        name, kind = preparer.quote_identifier(column.name), column.type.compile(engine.dialect)
        statement = f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {name} {kind}"
        try:
            with engine.begin() as connection:
                connection.execute(text(statement))
        except Exception as error:
            logger.warning(
                "Failed to add missing column %r to table %r; what is in it is not stored until you"
                " execute: %s. Error: %s",
                column.name, table.name, statement, error,
            )  # fmt: skip

    def session_factory(self, dburi: str, **kwargs: Any) -> Any:
        """Return a session; the tables are there."""
        engine, session = self.create_session(dburi, **kwargs)
        self.prepare_models(engine)
        return session()
