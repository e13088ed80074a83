"""Celery's way of writing tasks, on `fsdf_engine`.

from fsdf_compat import Celery

app = Celery("proj", broker="redis://127.0.0.1:6379/0", backend="redis://127.0.0.1:6379/1")

@app.task
def add(x, y):
    return x + y

add.delay(1, 2).get(timeout=10)

Names are loaded when they are used: a worker must patch for greenlets before anything else.
`activate()`, or `FSDF_AS_CELERY=1` in the environment, makes `import celery` mean this package.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._state import current_app, current_task
    from .app import shared_task
    from .app.base import Celery
    from .app.task import Task
    from .app.utils import bugreport
    from .canvas import (
        Signature,
        chain,
        chord,
        chunks,
        group,
        maybe_signature,
        signature,
        subtask,
        xmap,
        xstarmap,
    )
    from .result import AsyncResult
    from .utils import uuid

    App = Celery

__all__ = [
    "App", "AsyncResult", "Celery", "Signature", "Task", "activate", "bugreport", "chain", "chord",
    "chunks", "current_app", "current_task", "group", "maybe_signature", "shared_task",
    "signature", "subtask", "uuid", "xmap", "xstarmap",
]  # fmt: skip

#: The Celery whose shape this is. Programs read it to find out what there is.
__version__ = "5.7.0"
SERIES = "fsdf"
VERSION_BANNER = f"{__version__} ({SERIES})"
__author__ = "The authors of fsdf"
__contact__ = "https://github.com/fsdf/fsdf/issues"
__homepage__ = "https://docs.celeryq.dev/"
__docformat__ = "markdown"
__keywords__ = "task job queue distributed messaging actor"

version_info_t = namedtuple("version_info_t", "major minor micro releaselevel serial")
VERSION = version_info = version_info_t(5, 7, 0, "", "")

# Handlers of signals write by it also after a patch for greenlets, whose `write` may not be called
# in the hub.
_original_os_write = os.write

_HOMES = {
    "_state": ("current_app", "current_task"),
    "app": ("bugreport", "shared_task"),
    "app.base": ("App", "Celery"),
    "app.task": ("Task",),
    "canvas": (
        "Signature", "chain", "chord", "chunks", "group", "maybe_signature", "signature",
        "subtask", "xmap", "xstarmap",
    ),
    "result": ("AsyncResult",),
    "utils": ("uuid",),
}  # fmt: skip
_MODULES = {
    "app", "apps", "backends", "beat", "bin", "bootsteps", "canvas", "concurrency", "contrib",
    "events", "exceptions", "execute", "fixups", "loaders", "local", "log", "messaging",
    "platforms", "registry", "result", "schedules", "security", "signals", "states", "utils",
    "worker",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for: a name, or a module of this package."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is not None:
        found = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = found
        return found
    if name in _MODULES:
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


def activate() -> None:
    """Make `import celery` and every `celery.x` mean this package, here and in child processes.

    To be called first of all: each module has one object, under both names, and calls itself
    `celery.x`. A second call does nothing.

    Raises: RuntimeError: something of either package has been imported.
    """
    import_module("._alias", __package__).activate()


def _find_option_with_arg(
    argv: Sequence[str],
    short_opts: Sequence[str] | None = None,
    long_opts: Sequence[str] | None = None,
) -> str:
    short, long = short_opts or [], long_opts or []
    for place, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in long and name.startswith("--"):
            return value if equals else argv[place + 1]
        if argument in short:
            return argv[place + 1]
    raise KeyError("|".join([*short, *long]))


def _patch_eventlet() -> None:
    import eventlet
    import eventlet.debug

    eventlet.monkey_patch()
    seconds = float(os.environ.get("EVENTLET_NOBLOCK", 0))
    if seconds:
        eventlet.debug.hub_blocking_detection(seconds, seconds)


def _patch_gevent() -> None:
    import gevent.monkey

    gevent.monkey.patch_all()


def maybe_patch_concurrency(
    argv: Sequence[str] | None = None,
    short_opts: Sequence[str] | None = None,
    long_opts: Sequence[str] | None = None,
    patches: Mapping[str, Callable[[], None]] | None = None,
) -> None:
    """Patch Python for the greenlets of the pool that a command line names, if it names one.

    Raises: ModuleNotFoundError: the pool's package is not installed.
    """
    try:
        pool = _find_option_with_arg(
            argv or sys.argv, short_opts or ["-P"], long_opts or ["--pool"]
        )
    except (KeyError, IndexError):  # also where the name is missing: the command tells of that
        return
    patch = (patches or {"eventlet": _patch_eventlet, "gevent": _patch_gevent}).get(pool)
    if patch is None:
        return
    try:
        patch()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != pool:
            raise
        text = f'the pool {pool} is not installed: pip install "fsdf[{pool}]"'
        raise ModuleNotFoundError(text, name=pool) from None
