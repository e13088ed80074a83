"""Tasks that nobody has imported: found in the project by their names, where their code runs."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Any

from fsdf_engine import Task as EngineTask

from . import serving
from .index import Index, Place

__all__ = ["resolve"]
logger = logging.getLogger("celery.worker.imports")
ROOT = "FSDF_CELERY_ROOT"  # the environment variable with the folder that is looked through
_indexes: dict[str, Index] = {}


def resolve(wire_queue: str, name: str) -> EngineTask[..., Any] | None:
    """Return the task of a name, imported if need be; None where the project has none. Blocks.

    Raises:
        Exception: what the import raises; or two files have the task.
    """
    here = serving._here()
    app, queue = here.app, here.requests.queue_of(wire_queue)
    if (task := app._tasks.get(name)) is None:
        root = os.environ.get(ROOT) or os.getcwd()
        index = _indexes.setdefault(root, Index(root))
        if (place := index.find(name, app.main)) is None:
            if index.is_cut:
                raise LookupError(f"{root} has too many sources to look through for it")
            return None
        task = _import(app, name, place)
        logger.info("imported %s for task %s", os.path.relpath(place.path, index.root), name)
    return here.declare_task(queue, task, name)


def _import(app: Any, name: str, place: Place) -> Any:
    """Import the module of a task, and return the task, which is the app's from now on."""
    if place.folder not in sys.path:
        sys.path.append(place.folder)
    module = import_module(place.module)
    file = getattr(module, "__file__", None) or ""
    if os.path.realpath(file) != os.path.realpath(place.path):
        raise ImportError(f"{place.module} is {file}, and the task {name!r} is in {place.path}")
    task = app._tasks.get(name)
    if task is None:  # of an app of its own, or named after a script
        task = getattr(module, place.function)
        if isinstance(task, type):
            task = next(t for t in app._tasks.values() if type(t) is task)
        app._tasks[name] = task
    return task
