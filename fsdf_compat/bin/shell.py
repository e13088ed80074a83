"""`celery shell`: Python with the app and its tasks."""

from __future__ import annotations

import code
import importlib
from typing import Any

import click

from .base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ["shell"]
_GROUP = "Shell Options"
_CANVAS = ("Task", "chord", "group", "chain", "chunks", "xmap", "xstarmap")


def _option(*names: str, **kwargs: Any) -> Any:
    return click.option(*names, cls=CeleryOption, is_flag=True, help_group=_GROUP, **kwargs)


def _ipython(names: dict[str, Any]) -> None:
    importlib.import_module("IPython").start_ipython(argv=[], user_ns=names)


def _bpython(names: dict[str, Any]) -> None:
    importlib.import_module("bpython").embed(names)


def _python(names: dict[str, Any]) -> None:
    code.interact(local=names)


_SHELLS = {"ipython": _ipython, "bpython": _bpython, "python": _python}


@click.command(cls=CeleryCommand)
@_option("-I", "--ipython", help="Use IPython.")
@_option("-B", "--bpython", help="Use bpython.")
@_option("-P", "--python", help="Use plain Python.")
@_option("-T", "--without-tasks", help="Don't import the tasks.")
@_option("--eventlet", help="Patch the process for eventlet.")
@_option("--gevent", help="Patch the process for gevent.")
@click.pass_context
@handle_preload_options
def shell(ctx: Any, without_tasks: bool, eventlet: bool, gevent: bool, **kwargs: Any) -> None:
    """Start Python with `app`, the canvas, and each task under its name."""
    app, root = ctx.obj.app, importlib.import_module(__package__.rpartition(".")[0])
    if eventlet or gevent:
        root.maybe_patch_concurrency(["-P", "eventlet" if eventlet else "gevent"], ["-P"])
    names = {"app": app, "celery": app, **{name: getattr(root, name) for name in _CANVAS}}
    if not without_tasks:
        app.loader.import_default_modules()
        names |= {t.__name__: t for t in app.tasks.values() if not t.name.startswith("celery.")}
    wanted = [name for name in _SHELLS if kwargs.get(name)] or list(_SHELLS)
    for name in wanted:
        try:
            return _SHELLS[name](names)
        except ImportError:
            if name == wanted[-1]:
                raise click.ClickException(f"{name} is not installed: pip install {name}") from None
    return None
