"""The application: configuration, tasks, and how messages leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _state
from .._state import (
    app_or_default,
    disable_trace,
    enable_trace,
    pop_current_task,
    push_current_task,
)
from ..local import Proxy
from .base import Celery
from .utils import AppPickler

__all__ = [
    "AppPickler", "Celery", "app_or_default", "bugreport", "default_app", "disable_trace",
    "enable_trace", "pop_current_task", "push_current_task", "shared_task",
]  # fmt: skip

default_app = Proxy(lambda: _state.default_app)


def bugreport(app: Any = None) -> Any:
    """Return what a report about an error should say of versions and settings."""
    return (app or _state.get_current_app()).bugreport()


if TYPE_CHECKING:
    from .._app.typed import Decorator

    shared_task: Decorator
else:

    def shared_task(*args: Any, **kwargs: Any) -> Any:
        """Make a function a task of every app, those that are made later included.

        What it returns stands for the current app's task.
        """
        if len(args) == 1 and callable(args[0]):
            return _shared(args[0], kwargs)
        return lambda fun: _shared(fun, dict(*args, **kwargs))


def _shared(fun: Any, options: dict[str, Any]) -> Any:
    if type(fun) is Proxy:
        raise TypeError(
            "@shared_task was applied more than once to the same function. Remove the extra"
            " @shared_task decorator."
        )
    _state.connect_on_app_finalize(lambda app: app._task_from_fun(fun, **options))
    for app in list(_state._get_active_apps()):
        if app.finalized:
            with app._finalize_mutex:
                app._task_from_fun(fun, **options)

    def of_current_app() -> Any:
        app = _state.get_current_app()
        name = options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)
        return app.tasks[name]

    return Proxy(of_current_app)
