"""What a parent process and its children do to each other: start, watch, follow, end."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from importlib import import_module
from multiprocessing import connection
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

from ..errors import ConfigurationError
from ..log import relay
from .inheritance import inherited
from .signals import held_back, let_through

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Child", "enter", "importing_main", "inheritance", "keep_main_file", "load",
    "start_by", "starting",
]  # fmt: skip
_IMPORTING = "_fsdf_importing"
LAST_LINES = 0.2  # seconds to handle what a dead child has logged; longer only if others write, too
_usual: BaseContext | None = None
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has one way to end a process


# ------------------------------------------------------------------ the parent's side


def start_by(context: BaseContext | None) -> None:
    """Start the children of this process so where no method is said; None: by spawn."""
    global _usual
    _usual = context


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: start_by(None))


def starting(method: str) -> BaseContext:
    """Return the context of a start method; "" is the usual one of this process.

    Raises:
        ConfigurationError: this system does not have it.
    """
    if not method:
        return _usual or multiprocessing.get_context("spawn")
    if method not in (known := multiprocessing.get_all_start_methods()):
        raise ConfigurationError(
            f"unknown start method {method!r}; this system has {', '.join(known)}"
        )
    return multiprocessing.get_context(method)


def keep_main_file() -> None:
    """Let children that are started after the script's last line import the main module, too.

    The interpreter deletes `__main__.__file__` at that moment, and spawn passes on what it finds
    there. An attribute of the module's class stays; nothing else about the module changes.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is not None and type(main) is ModuleType:
        main.__class__ = type("MainModule", (ModuleType,), {"__file__": path})


def inheritance() -> dict[str, Any]:
    """Return what this process has configured, for `load` in its children; they log through it."""
    return {name: give() for name, (give, _) in inherited.items()}


class Child:
    """A process that this one has started, and our ends of the sockets between the two."""

    def __init__(
        self, context: BaseContext, name: str, target: Callable[..., None], sockets: int, *args: Any
    ) -> None:
        """Start `target(*sockets, *args)`. Blocks for about a millisecond.

        What it logs is handled here.

        Raises:
            OSError: the system gives no process, socket or memory.
        """
        pairs = [socket.socketpair() for _ in range(sockets)]
        self.ends, theirs = [ours for ours, _ in pairs], [other for _, other in pairs]
        lines, end = socket.socketpair()
        process: Any = context.Process(  # type: ignore[attr-defined]
            target=_begin, args=(target, end, relay.settings(), *theirs, *args), name=name,
            daemon=True,
        )  # fmt: skip
        try:
            with held_back():
                process.start()
        except BaseException:
            self._close()
            lines.close()
            raise
        finally:
            for theirs_end in (*theirs, end):
                theirs_end.close()
        self._process, self.pid, self._logs = process, int(process.pid), relay.listen(lines)
        self.sentinel = self._open_sentinel()  # readable when it has ended; None on Windows

    def _open_sentinel(self) -> int | None:
        """Prefer a descriptor of the process to a pipe, which what a run starts may keep open."""
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an old kernel, or a sandbox
                return os.pidfd_open(self.pid)
        return int(self._process.sentinel) if os.name == "posix" else None

    def kill(self) -> None:
        """End it now, with the processes that it has started; C code, too."""
        try:
            if hasattr(os, "killpg") and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
                return
        except (ProcessLookupError, PermissionError):
            pass
        self._process.kill()  # does nothing if it has ended

    def signal(self, number: int) -> None:
        """Signal this very process: not another one by now of its id, nor what it has started."""
        with contextlib.suppress(ProcessLookupError):
            if self.sentinel is not None and self.sentinel != self._process.sentinel:
                signal.pidfd_send_signal(self.sentinel, number)
            else:
                os.kill(self.pid, number)

    def bury(self) -> int:
        """Free what belongs to the ended process; return its exit code, or the worst."""
        self._process.join(1.0)
        self._logs.join(LAST_LINES)
        code: int | None = self._process.exitcode
        self._close()
        if self.sentinel is not None and self.sentinel != self._process.sentinel:
            os.close(self.sentinel)
        return -int(_SIGKILL) if code is None else code

    def _close(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):  # wakes a thread that waits for it
                end.shutdown(socket.SHUT_RDWR)
            end.close()


# ------------------------------------------------------------------ the child's side


def importing_main() -> bool:
    """Say whether this process is a child that is still importing the user's modules."""
    process = multiprocessing.current_process()
    return bool(getattr(process, "_inheriting", False) or getattr(process, _IMPORTING, False))


def enter() -> None:
    """Lead a process group, so that Ctrl-C in a terminal reaches our parent only; die with it."""
    if hasattr(os, "setpgid"):
        with contextlib.suppress(OSError):  # it leads a session already
            os.setpgid(0, 0)
    let_through()  # what the parent has held back until here
    _follow_parent()
    multiprocessing.current_process().daemon = False  # it may start processes of its own


def _begin(
    target: Callable[..., None], lines: socket.socket, log: relay.Settings, *args: Any
) -> None:
    """Run `target`, and log through the parent."""
    relay.follow(lines, log)
    try:
        target(*args)
    finally:
        relay.flush()


def load(modules: Iterable[str], place: str, given: dict[str, Any]) -> Any:
    """Be as the parent is, import modules, and return the function at "module:function"."""
    for name, (_, take) in inherited.items():
        take(given[name])
    process = multiprocessing.current_process()
    setattr(process, _IMPORTING, True)
    try:
        for name in modules:
            import_module(name)
        module, _, function = place.partition(":")
        return getattr(import_module(module), function)
    finally:
        relay.settle()
        delattr(process, _IMPORTING)


def _follow_parent() -> None:
    """End this child when its parent dies, even in the middle of a C loop where Linux allows."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, see prctl(2)
    if above := multiprocessing.parent_process():
        if hasattr(fcntl, "F_SETSIG"):  # for a child of the fork server, which outlives the parent
            fcntl.fcntl(above.sentinel, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(above.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(above.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(above.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
        thread = threading.Thread(target=_die_with, args=(above.sentinel,), name="fsdf-parent")
        thread.daemon = True
        thread.start()  # it also sees a parent that has died before


def _die_with(sentinel: int) -> None:
    connection.wait([sentinel])
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with the processes that a run has started
    os.kill(os.getpid(), _SIGKILL)
