"""Django: its settings, its tasks, and connections that are closed when a task has ended."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from datetime import datetime, timezone
from importlib import import_module
from typing import Any
from uuid import uuid4

from kombu.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from .. import _state, signals
from ..exceptions import FixupWarning, ImproperlyConfigured
from ..local import Proxy
from ..utils.log import get_logger

__all__ = ["DjangoFixup", "DjangoWorkerFixup", "fixup"]
logger = get_logger("celery.fixups.django")


def _maybe_close_fd(fh: Any) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        os.close(fh.fileno())


def _app_of(app: Any) -> Any:
    return app._get_current_object() if isinstance(app, Proxy) else app


def _verify_django_version(django: Any) -> None:
    if django.VERSION < (1, 11):
        raise ImproperlyConfigured("Celery 5.x requires Django 1.11 or later.")


def fixup(app: Any, env: str = "DJANGO_SETTINGS_MODULE") -> DjangoFixup | None:
    """Fit an app to Django, if the environment says that there are settings."""
    if not os.environ.get(env) or "django" in app.loader_cls.lower():
        return None
    try:
        import django
    except ImportError:
        text = f"{env} is set, and Django is not installed: it is left alone."
        warnings.warn(FixupWarning(text), stacklevel=2)
        return None
    _verify_django_version(django)
    return DjangoFixup(app).install()


def _tells() -> bool:
    """Say whether all databases tell of their connections as Django's do, and no cache has one."""
    database: Any = symbol_by_name("django.db.backends.base.base:BaseDatabaseWrapper")
    cache: Any = symbol_by_name("django.core.cache.backends.base:BaseCache")
    load: Any = symbol_by_name("django.utils.module_loading:import_string")
    caches: Any = symbol_by_name("django.conf:settings").CACHES
    try:
        connections = symbol_by_name("django.db:connections").all()
        kinds = [load(each["BACKEND"]) for each in caches.values()]
    except Exception:  # of a project that is not whole: Django tells it when it is used
        return False
    return all(type(each).connect is database.connect for each in connections) and all(
        kind.close is cache.close for kind in kinds
    )


class DjangoFixup:
    """What an app needs in a Django project, wherever it is used."""

    def __init__(self, app: Any) -> None:
        self.app = app
        if _state.default_app is None:
            app.set_default()
        self._worker_fixup: DjangoWorkerFixup | None = None
        self._worker_init_uid = (f"{__name__}.DjangoFixup.on_worker_init", uuid4().hex)

    def install(self) -> DjangoFixup:
        """Make it so."""
        sys.path.insert(0, os.getcwd())  # the project comes before what is installed
        self._settings = symbol_by_name("django.conf:settings")
        self.app.loader.now = self.now
        if not self.app._custom_task_cls_used:
            root = __name__.rpartition(".fixups.")[0]
            self.app.task_cls = f"{root}.contrib.django.task:DjangoTask"
        signals.import_modules.connect(self.on_import_modules, sender=self.app)
        # It comes from workers, of any app.
        signals.worker_init.connect(self.on_worker_init, dispatch_uid=self._worker_init_uid)
        return self

    @property
    def worker_fixup(self) -> DjangoWorkerFixup:
        """What its worker needs besides."""
        if self._worker_fixup is None:
            self._worker_fixup = DjangoWorkerFixup(self.app)
        return self._worker_fixup

    @worker_fixup.setter
    def worker_fixup(self, value: DjangoWorkerFixup) -> None:
        self._worker_fixup = value

    def on_import_modules(self, **kwargs: Any) -> None:
        """Set up Django before modules with tasks are imported, which may use models."""
        self.worker_fixup.validate_models()

    def on_worker_init(self, **kwargs: Any) -> None:
        """Fit our own worker."""
        if (worker := kwargs.get("sender")) is None:
            text = "DjangoFixup.on_worker_init was called without a sender: its worker."
            warnings.warn(text, FixupWarning, stacklevel=2)
        else:
            app = _app_of(getattr(worker, "app", None))
            if app is not None and app is not _app_of(self.app):
                logger.debug("Of no use to %r: %r is a worker of %r", self.app, worker, app)
                return
            self.worker_fixup.worker = worker
        self.worker_fixup.install()

    def now(self, utc: bool = False) -> datetime:
        """Return now, as Django has it."""
        return datetime.now(timezone.utc) if utc else self._now()

    def autodiscover_tasks(self) -> list[str]:
        """Return the names of the installed apps."""
        apps: Any = symbol_by_name("django.apps:apps")
        return [config.name for config in apps.get_app_configs()]

    @cached_property
    def _now(self) -> Any:
        return symbol_by_name("django.utils.timezone:now")


class DjangoWorkerFixup:
    """What a worker needs: a connection of another process, or one that has timed out, is closed.

    With `CELERY_DB_REUSE_MAX` connections are kept for so many tasks.
    """

    _db_recycles = 0
    worker: Any = None
    _is_sure = False  # that Django tells of every connection, and caches have none

    def __init__(self, app: Any) -> None:
        self.app = app
        self._thread = threading.local()
        self.db_reuse_max = app.conf.get("CELERY_DB_REUSE_MAX", None)
        self._db: Any = import_module("django.db")
        self._cache: Any = import_module("django.core.cache")
        self._settings: Any = symbol_by_name("django.conf:settings")
        self.interface_errors = (symbol_by_name("django.db.utils.InterfaceError"),)
        self.DatabaseError = symbol_by_name("django.db:DatabaseError")

    def django_setup(self) -> None:
        """Set up Django, if nobody has."""
        import django

        django.setup()

    def validate_models(self) -> None:
        """Set up Django, and let it check the project, unless `--skip-checks` was given."""
        self.django_setup()
        if not os.environ.get("CELERY_SKIP_CHECKS"):
            symbol_by_name("django.core.checks:run_checks")()

    def install(self) -> DjangoWorkerFixup:
        """Make it so."""
        signals.beat_embedded_init.connect(self.close_database)
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)
        signals.worker_process_init.connect(self.on_worker_process_init)
        self.close_database()
        self.close_cache()
        symbol_by_name("django.db.backends.signals:connection_created").connect(self.on_connection)
        self._is_sure = type(self) is DjangoWorkerFixup and not self.db_reuse_max and _tells()
        return self

    def on_connection(self, **kwargs: Any) -> None:
        """Note that this thread has connected."""
        self._thread.has_connected = True

    def rests(self) -> bool:
        """Say whether this thread surely has nothing to close."""
        return self._is_sure and not getattr(self._thread, "has_connected", False)

    def on_worker_process_init(self, **kwargs: Any) -> None:
        """Forget what was the parent's, without a word to the server: it is in use there."""
        if os.environ.get("FORKED_BY_MULTIPROCESSING"):
            self.validate_models()
        for connection in self._db.connections.all():
            if connection and connection.connection:
                self._maybe_close_db_fd(connection)
        self._close_database()
        self.close_cache()

    def _maybe_close_db_fd(self, connection: Any) -> None:
        try:
            with connection.wrap_database_errors:
                _maybe_close_fd(connection.connection)
        except self.interface_errors:
            pass

    def on_task_prerun(self, sender: Any, **kwargs: Any) -> None:
        """Close before a task; not for one that runs in the caller's own process."""
        if not getattr(sender.request, "is_eager", False):
            self.close_database()

    def on_task_postrun(self, sender: Any, **kwargs: Any) -> None:
        """Close after a task."""
        if not getattr(sender.request, "is_eager", False):
            self.close_database()
            self.close_cache()

    def close_database(self, **kwargs: Any) -> None:
        """Close connections, or count the tasks that have used them."""
        if not self.db_reuse_max:
            return self._close_database()
        if self._db_recycles >= self.db_reuse_max * 2:
            self._db_recycles = 0
            self._close_database()
        self._db_recycles += 1
        return None

    def _is_prefork(self) -> bool:
        if self.worker is None:
            return False
        pool = self.worker.pool_cls
        return "prefork" in (pool if isinstance(pool, str) else pool.__module__)

    def _close_database(self) -> None:
        try:
            connections = self._db.connections.all(initialized_only=True)
        except TypeError:  # Django < 4.1
            connections = self._db.connections.all()
        is_prefork = self._is_prefork()
        self._thread.has_connected = False
        for connection in connections:
            try:
                connection.close()
                options = self._settings.DATABASES.get(connection.alias, {}).get("OPTIONS", {})
                if options.get("pool") and is_prefork and hasattr(connection, "close_pool"):
                    with contextlib.suppress(KeyError):
                        connection.close_pool()
            except self.interface_errors:
                pass
            except self.DatabaseError as error:
                if not any(word in str(error) for word in ("closed", "not connected")):
                    raise

    def close_cache(self) -> None:
        """Close the connections of caches."""
        with contextlib.suppress(TypeError, AttributeError):
            self._cache.close_caches()
