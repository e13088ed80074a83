"""Results in a database, by SQLAlchemy, in Celery's tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import wraps
from typing import Any

from kombu.serialization import loads
from kombu.utils.encoding import ensure_bytes

from fsdf_engine import masked

from ... import states
from ...exceptions import ImproperlyConfigured
from ...result import result_from_tuple
from ...utils.imports import symbol_by_name
from ...utils.time import maybe_timedelta
from ..base import BaseBackend

try:
    from sqlalchemy.exc import DatabaseError, InterfaceError, InvalidRequestError
    from sqlalchemy.orm import defer
    from sqlalchemy.orm.attributes import flag_modified
    from sqlalchemy.orm.exc import StaleDataError

    from .models import Task, TaskExtended, TaskSet
    from .session import SessionManager, never_connected
except ImportError:
    raise ImproperlyConfigured(
        "The database result backend requires SQLAlchemy to be installed: pip install sqlalchemy"
    ) from None

__all__ = ("DatabaseBackend",)
logger = logging.getLogger(__name__)
RETRYABLE_DB_ERRORS = (DatabaseError, InterfaceError, InvalidRequestError, StaleDataError)
PICKLE = "application/x-python-serialize"
_OWN_COLUMNS = {"id", "task_id", "children", "stamps"}


@contextmanager
def session_cleanup(session: Any) -> Iterator[None]:
    """Close a session at the end, rolled back if that is an error."""
    try:
        yield
    except Exception:
        session.rollback()
        raise
    finally:
        session.close()


class DatabaseBackend(BaseBackend):
    """Results in a database ("db+SQLALCHEMY_URL"). Each operation is tried four times."""

    subpolling_interval = 0.5
    task_cls: Any = Task
    taskset_cls: Any = TaskSet

    def __init__(
        self, dburi: Any = None, engine_options: Any = None, url: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(expires_type=maybe_timedelta, url=url, **kwargs)
        conf = self.app.conf
        if not conf.value_set_for("result_backend_always_retry") or self.always_retry is None:
            self.always_retry = True
        if not conf.value_set_for("result_backend_max_retries") or self.max_retries is None:
            self.max_retries = 3
        if self.extended_result:
            self.task_cls = TaskExtended
        self.url = url or dburi or conf.database_url
        self.engine_options = {**(conf.database_engine_options or {}), **(engine_options or {})}
        self.short_lived_sessions = kwargs.get(
            "short_lived_sessions", conf.database_short_lived_sessions
        )
        schemas, names = conf.database_table_schemas or {}, conf.database_table_names or {}
        self.task_cls.configure(schema=schemas.get("task"), name=names.get("task"))
        self.taskset_cls.configure(schema=schemas.get("group"), name=names.get("group"))
        if not self.url:
            raise ImproperlyConfigured(
                "Missing connection string! Do you have the database_url setting set to a real"
                " value?"
            )
        callback = kwargs.get("engine_callback", conf.database_engine_callback)
        if isinstance(callback, str):
            callback = symbol_by_name(callback)
        if callback is not None and not callable(callback):
            raise ImproperlyConfigured(
                f"database_engine_callback must be callable, got {callback!r}"
            )
        self.session_manager = SessionManager(engine_callback=callback)
        if conf.database_create_tables_at_setup is True:
            self._create_tables()

    @property
    def extended_result(self) -> Any:
        """Whether more is stored."""
        return self.app.conf.find_value_for_key("extended", "result")

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Say whether the database may be asked again after this."""
        return isinstance(exc, RETRYABLE_DB_ERRORS)

    def on_backend_retryable_error(self, exc: BaseException) -> None:
        """Let go of the connections before it is asked again."""
        self.session_manager.invalidate(self.url)

    def _ensure_retryable(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        @wraps(func)
        def asked(*args: Any, **kwargs: Any) -> Any:
            try:
                return func(*args, **kwargs)
            except DatabaseError as error:
                if never_connected(error):  # the client's own words may name no server at all
                    error.add_detail(f"result_backend is {masked(self.url)}")
                raise

        return super()._ensure_retryable(asked, *args, **kwargs)

    def _create_tables(self) -> None:
        self._ensure_retryable(self.ResultSession)

    def ResultSession(self, session_manager: Any = None) -> Any:
        """Return a session; the tables are there."""
        return (session_manager or self.session_manager).session_factory(
            dburi=self.url, short_lived_sessions=self.short_lived_sessions, **self.engine_options
        )

    # ---------------------------------------------------------------- tasks

    def _query_task(self, session: Any, task_id: Any, for_update: bool = False) -> Any:
        """Return a task's row; of a table that lacks columns without these."""
        cls = self.task_cls
        query = session.query(cls)
        if for_update:
            query = query.with_for_update().populate_existing()
        try:
            rows = list(query.filter(cls.task_id == task_id))
        except DatabaseError as error:
            told = str(error).lower()
            lacks = [name for name in ("children", "stamps") if name in told and hasattr(cls, name)]
            if not lacks:
                raise
            query = query.options(*[defer(getattr(cls, name)) for name in lacks])
            rows = list(query.filter(cls.task_id == task_id))
        return rows[0] if rows else None

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> None:
        """Store a state, unless the task has succeeded."""
        session = self.ResultSession()
        with session_cleanup(session):
            # A row that is there is locked, and read again: one that is not cannot be, for on MySQL
            # that would lock a gap, upon which two who insert wait for each other.
            task = self._query_task(session, task_id) and self._query_task(
                session, task_id, for_update=True
            )
            if not task:
                task = self.task_cls(task_id)
                task.task_id = task_id
                session.add(task)
                session.flush()
            elif task.status == states.SUCCESS:
                return
            self._update_result(task, result, state, traceback=traceback, request=request)
            # written even if it seems the same: SQLite has no locks, and another run may have
            # stored its state beside our result
            flag_modified(task, "status")
            session.commit()

    def _update_result(
        self, task: Any, result: Any, state: str, traceback: Any = None, request: Any = None
    ) -> None:
        meta = self._get_result_meta(
            result=ensure_bytes(self.encode(result)), state=state, traceback=traceback,
            request=request, format_date=False, encode=True,
        )  # fmt: skip
        columns = self.task_cls.__table__.columns
        for name in (column.name for column in columns):
            if name not in _OWN_COLUMNS:
                setattr(task, name, meta.get(name))
        if "children" in columns and hasattr(task, "children"):
            children = meta.get("children")
            task.children = ensure_bytes(self.encode(children)) if children else None
        names = meta.get("stamped_headers")
        if "stamps" in columns and names:
            stamps = {name: meta[name] for name in names if name in meta}
            told = {"stamped_headers": names, "stamps": stamps}
            task.stamps = ensure_bytes(self.encode(told))

    def _get_task_meta_for(self, task_id: Any) -> Any:
        session = self.ResultSession()
        with session_cleanup(session):
            task = self._query_task(session, task_id)
            if not task:
                task = self.task_cls(task_id)
                task.status, task.result = states.PENDING, None
            data = task.to_dict()
        data["result"] = self._decode_stored_result(data["result"])
        for name in ("args", "kwargs", "children"):
            if data.get(name) is not None:
                data[name] = self.decode(data[name])
        if (stamps := data.pop("stamps", None)) is not None:
            data.update(self._stamps_of(stamps))
        return self.meta_from_decoded(data)

    def _stamps_of(self, stored: bytes) -> dict[str, Any]:
        try:
            told = self.decode(stored)
            names = (
                {"stamped_headers": told["stamped_headers"]} if "stamped_headers" in told else {}
            )
            return {**names, **told.get("stamps", {})}
        except Exception as error:
            logger.warning("the stamps of a result cannot be read: %r", error)
            return {}

    def _decode_stored_result(self, payload: Any) -> Any:
        """Return what a row holds. Versions before 5.7 always pickled it: read where accepted."""
        if payload is None:
            return None
        payload = ensure_bytes(payload)
        try:
            return self.decode(payload)
        except Exception:
            if payload[:1] != b"\x80" or PICKLE not in self.accept:
                raise
            logger.warning("a result is in pickle, as older versions stored it", exc_info=True)
            return loads(payload, PICKLE, "binary", accept=self.accept)

    def task_result_exists(self, task_id: Any) -> bool:
        """Say whether anything is stored about a task."""
        return self._ensure_retryable(self._task_result_exists, task_id=task_id)

    def _task_result_exists(self, task_id: Any) -> bool:
        session = self.ResultSession()
        with session_cleanup(session):
            found = session.query(self.task_cls).filter(self.task_cls.task_id == task_id)
            return found.first() is not None

    def _forget(self, task_id: Any) -> None:
        self._delete(self.task_cls, self.task_cls.task_id == task_id)

    def _delete(self, cls: Any, which: Any) -> None:
        session = self.ResultSession()
        with session_cleanup(session):
            session.query(cls).filter(which).delete()
            session.commit()

    # ---------------------------------------------------------------- groups

    def _save_group(self, group_id: Any, result: Any) -> Any:
        session = self.ResultSession()
        with session_cleanup(session):
            value = ensure_bytes(self.encode(self.prepare_value(result)))
            session.add(self.taskset_cls(group_id, value))
            session.commit()
        return result

    def _restore_group(self, group_id: Any) -> Any:
        session = self.ResultSession()
        with session_cleanup(session):
            cls = self.taskset_cls
            group = session.query(cls).filter(cls.taskset_id == group_id).first()
            if not group:
                return None
            data = group.to_dict()
        value = self._decode_stored_result(data["result"])
        data["result"] = value if value is None else result_from_tuple(value, self.app)
        return data

    def _delete_group(self, group_id: Any) -> None:
        self._delete(self.taskset_cls, self.taskset_cls.taskset_id == group_id)

    def cleanup(self) -> None:
        """Delete what is older than results last."""
        self._ensure_retryable(self._cleanup)

    def _cleanup(self) -> None:
        oldest = datetime.now(timezone.utc) - self.expires
        session = self.ResultSession()
        with session_cleanup(session):
            for cls in (self.task_cls, self.taskset_cls):
                session.query(cls).filter(cls.date_done < oldest).delete()
            session.commit()

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        own = {
            "dburi": self.url, "expires": self.expires, "engine_options": self.engine_options,
        }  # fmt: skip
        return super().__reduce__(args, {**(kwargs or {}), **own})
