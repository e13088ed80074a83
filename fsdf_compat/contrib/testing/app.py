"""Apps for tests: in memory, and without effect on others."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from ... import _state
from ...app.base import Celery
from ...app.log import Logging

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app"]
DEFAULT_TEST_CONFIG = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
    "broker_heartbeat": 0,
}


class Trap:
    """Stands where the current app is, and raises when anybody uses it."""

    def __getattr__(self, name: str) -> Any:
        if name in ("_is_coroutine", "__func__"):  # unittest.mock asks for these
            return None
        raise RuntimeError("Test depends on current_app")


class UnitLogging(Logging):
    """Leaves the log as the tests have it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.already_setup = True  # type: ignore[method-assign]


def TestApp(
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Any:
    """Return an app with `DEFAULT_TEST_CONFIG` and what `config` says."""
    importlib.import_module(".tasks", __package__)  # has `celery.ping`
    settings = dict(deepcopy(DEFAULT_TEST_CONFIG), **config or {})
    for key, given in (("broker_url", broker), ("result_backend", backend)):
        if given is not None:
            settings.pop(key, None)
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    app.add_defaults(settings)
    return app


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest collects what begins so


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Let whoever uses the current or the default app fail."""
    trap, before = Trap(), _state._tls
    _state.set_default_app(trap)
    _state._tls = type("NonTLS", (), {"current_app": trap})()
    try:
        yield
    finally:
        _state._tls = before


@contextmanager
def setup_default_app(app: Any, use_trap: bool = False) -> Iterator[None]:
    """Put everything that apps share back as it was, after a test."""
    current, default = _state.get_current_app(), _state.default_app
    finalizers, apps = set(_state._on_app_finalizers), weakref.WeakSet(_state._apps)
    try:
        if use_trap:
            with set_trap(app):
                yield
        else:
            yield
    finally:
        _state.set_default_app(default)
        _state._tls.current_app = current
        if app is not current:
            app.close()
        _state._on_app_finalizers, _state._apps = finalizers, apps
        if app._backend is not None:
            app._backend_cache = app._local.backend = None
