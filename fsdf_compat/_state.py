"""Which app and which task is current, and what happens whenever an app is finalized.

The layers below the app reach it through here only: `app.base` registers what makes the app of
programs that have none.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from .local import Proxy

__all__ = [
    "ContextStack", "connect_on_app_finalize", "current_app", "current_task", "get_current_app",
    "get_current_task", "get_current_worker_task", "set_default_app",
]  # fmt: skip


class ContextStack:
    """A stack of the code that runs: each thread, greenlet and asyncio task sees its own.

    What is started inside begins with what was current there. Pushing changes no list that another
    context has.
    """

    def __init__(self, name: str = "celery_stack") -> None:
        self._items: ContextVar[tuple[Any, ...]] = ContextVar(name, default=())

    def push(self, item: Any) -> None:
        """Make `item` the topmost."""
        self._items.set((*self._items.get(), item))

    def begin(self, item: Any) -> None:
        """Make `item` the only one."""
        self._items.set((item,))

    def pop(self) -> Any:
        """Take the topmost away and return it; None where there is none."""
        items = self._items.get()
        if not items:
            return None
        self._items.set(items[:-1])
        return items[-1]

    @property
    def top(self) -> Any:
        """The topmost, or None."""
        items = self._items.get()
        return items[-1] if items else None

    @property
    def stack(self) -> list[Any]:
        """All, the topmost last."""
        return list(self._items.get())

    def __len__(self) -> int:
        return len(self._items.get())


default_app: Any = None
app_or_default: Callable[..., Any]

_apps: weakref.WeakSet[Any] = weakref.WeakSet()
_on_app_finalizers: set[Callable[[Any], Any]] = set()
_task_join_will_block: Any = False  # outside of runs
_runs_block = True
_run_blocks: ContextVar[bool | None] = ContextVar("celery_join_will_block", default=None)
_task_stack = ContextStack("celery_tasks")
push_current_task = _task_stack.push
pop_current_task = _task_stack.pop


class _TLS(threading.local):
    current_app: Any = None  # the one made or set last in this thread


_tls = _TLS()


def connect_on_app_finalize(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Call `callback(app)` whenever an app is finalized."""
    _on_app_finalizers.add(callback)
    return callback


def _announce_app_finalized(app: Any) -> None:
    for callback in set(_on_app_finalizers):
        callback(app)


def _set_task_join_will_block(blocks: Any) -> None:
    """Say whether waiting for a result is an error: inside a run for that run, else everywhere."""
    global _task_join_will_block
    if _run_blocks.get() is None:
        _task_join_will_block = blocks
    else:
        _run_blocks.set(blocks)


def _enter_run() -> None:
    """From now on, in this context, waiting for a result is an error, where runs block slots."""
    _run_blocks.set(_runs_block)


def _let_runs_wait() -> None:
    """Let runs of this process wait for results: their pool goes on with others meanwhile."""
    global _runs_block
    _runs_block = False


def task_join_will_block() -> Any:
    """Say whether waiting for a result is an error here: a run that waits keeps its slot."""
    blocks = _run_blocks.get()
    return _task_join_will_block if blocks is None else blocks


def set_default_app(app: Any) -> None:
    """Make an app the one of every thread that has none of its own."""
    global default_app
    default_app = app


def _get_current_app() -> Any:
    if default_app is None:
        loader = os.environ.get("CELERY_LOADER") or "default"
        made = import_module(".app.base", __package__).Celery
        set_default_app(made("default", fixups=[], set_as_current=False, loader=loader))
    return _tls.current_app or default_app


def _refuse_current_app() -> Any:
    raise RuntimeError("the current app is asked for, which C_STRICT_APP forbids")


def _show_current_app() -> Any:
    print("the current app is asked for", file=sys.stderr)
    traceback.print_stack(file=sys.stderr)
    return _get_current_app()


def _set_current_app(app: Any) -> None:
    _tls.current_app = app


if os.environ.get("C_STRICT_APP"):
    get_current_app = _refuse_current_app
elif os.environ.get("C_WARN_APP"):
    get_current_app = _show_current_app
else:
    get_current_app = _get_current_app


def get_current_task() -> Any:
    """Return the task that runs here, or None."""
    return _task_stack.top


def get_current_worker_task() -> Any:
    """Return the task that the worker runs here, not one that it calls as a function; or None."""
    for task in reversed(_task_stack.stack):
        if not task.request.called_directly:
            return task
    return None


current_app = Proxy(get_current_app)
current_task = Proxy(get_current_task)


def _register_app(app: Any) -> None:
    _apps.add(app)


def _deregister_app(app: Any) -> None:
    _apps.discard(app)


def _get_active_apps() -> weakref.WeakSet[Any]:
    return _apps


def _app_or_default(app: Any = None) -> Any:
    return get_current_app() if app is None else app


def _app_or_default_trace(app: Any = None) -> Any:
    """As `_app_or_default`, but show who relies on the current app, and forbid the default one."""
    if app is not None:
        return app
    if _tls.current_app is None:
        raise Exception("no app is current here, and CELERY_TRACE_APP forbids the default one")
    print("-- the current app is used", file=sys.stderr)
    traceback.print_stack(file=sys.stderr)
    return _tls.current_app


def enable_trace() -> None:
    """Show where the current app is used for want of another one."""
    global app_or_default
    app_or_default = _app_or_default_trace


def disable_trace() -> None:
    """Show no more where the current app is used."""
    global app_or_default
    app_or_default = _app_or_default


if os.environ.get("CELERY_TRACE_APP"):
    enable_trace()
else:
    disable_trace()
