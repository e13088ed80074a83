"""Remote control: the worker's mailbox, where the app has it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ... import bootsteps
from .mingle import Mingle

__all__ = ("Control",)


class Control(bootsteps.StartStopStep):
    """Starts and stops the mailbox with the consumer."""

    requires = (Mingle,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        self.is_green = c.pool is not None and c.pool.is_green
        self.box: Any = None
        name = f"{__package__.rpartition('.')[0]}.pidbox"
        if c.app.conf.worker_enable_remote_control and find_spec(name):
            self.box = import_module(name).Pidbox(c)
        super().__init__(c, **kwargs)

    def include_if(self, c: Any) -> bool:
        """Take part only where there is a mailbox."""
        return self.box is not None

    def start(self, c: Any) -> None:
        """Hear what workers are told."""
        self.box.start()

    def stop(self, c: Any) -> None:
        """Hear no more."""
        self.box.stop()

    shutdown = stop
