"""What a new app has."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..app.registry import TaskRegistry
from ..utils.dispatch import Signal

__all__ = ["begin_configuration", "begin_tasks", "default_loader", "make_signals", "set_first"]


def default_loader(self: Any) -> Any:
    """Return the loader's class of an app that is given none."""
    chosen = os.environ.get("CELERY_LOADER") or self.loader_cls
    return chosen or "celery.loaders.app:AppLoader"


def begin_configuration(app: Any, source: Any, silent: bool) -> None:
    """Give an app no settings yet."""
    app.configured = False
    app._config_source, app._config_source_silent = source, silent
    app._pending_defaults, app._pending_periodic_tasks = deque(), deque()
    app._preconf_set_by_auto = set()


def begin_tasks(app: Any, tasks: Any, autofinalize: bool) -> None:
    """Give an app its registry."""
    app.finalized, app.autofinalize = False, autofinalize
    app._finalize_mutex = threading.RLock()
    app._pending, app._duplicate_task_names_warned = deque(), set()
    given = isinstance(tasks, TaskRegistry)
    app._tasks = tasks if given else app.registry_cls(tasks or {})


def set_first(app: Any, changes: Any, given: Mapping[str, Any]) -> None:
    """Take what was given with an app as settings; it says nothing of old or new names."""
    app._preconf = changes or {}
    for key, value in given.items():
        if value is not None:
            app._preconf[key] = value
            app._preconf_set_by_auto.add(key)


def make_signals(app: Any) -> None:
    """Give an app its signals; a subclass may have a method `on_configure` instead."""
    if app.on_configure is None:
        app.on_configure = Signal(name="app.on_configure")
    app.on_after_configure = Signal(name="app.on_after_configure", providing_args={"source"})
    app.on_after_finalize = Signal(name="app.on_after_finalize")
    app.on_after_fork = Signal(name="app.on_after_fork")
