"""fsdf_compat: Celery's way of writing tasks, on `fsdf_engine`.

from fsdf_compat import Celery

app = Celery("proj", broker="redis://127.0.0.1:6379/0", backend="redis://127.0.0.1:6379/1")

@app.task
def add(x, y):
    return x + y

add.delay(1, 2).get(timeout=10)

Names are loaded when they are used: a worker must patch for greenlets before anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app.base import Celery
    from .app.task import Task
    from .result import AsyncResult

    App = Celery

__all__ = ["App", "AsyncResult", "Celery", "Task"]

_HOMES = {
    "App": "app.base:Celery",
    "AsyncResult": "result:AsyncResult",
    "Celery": "app.base:Celery",
    "Task": "app.task:Task",
}
_NOT_YET = {
    "chain", "chord", "chunks", "current_app", "current_task", "group", "maybe_signature",
    "shared_task", "signature", "subtask", "xmap", "xstarmap",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    from importlib import import_module

    if home := _HOMES.get(name):
        module, _, attribute = home.partition(":")
        return getattr(import_module(f"{__name__}.{module}"), attribute)
    if name in _NOT_YET:
        from fsdf_engine import NotYetSupported

        raise NotYetSupported(f"{__name__}.{name} is not implemented in this version")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
