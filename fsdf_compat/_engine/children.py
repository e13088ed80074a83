"""What a worker's child processes do when they start and when they end."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from fsdf_engine import at_child

from . import serving

__all__ = ["start_child"]


def _prefork() -> Any:
    return import_module("..concurrency.prefork", __package__)


def start_child() -> None:
    """Make a child one that works for the app, unless it is of a worker of another kind."""
    if not (serving._served or os.environ.get(serving.APP)):
        return
    here, prefork = serving._here(), _prefork()
    serving.serve(here.app)
    prefork.process_destructor.hostname = here.requests.node
    prefork.process_initializer(here.app, here.requests.node)


def _end_child() -> None:
    if serving._served:
        _prefork().process_destructor(os.getpid(), 0)


at_child(start=start_child, end=_end_child)
