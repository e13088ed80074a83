"""What runs in a process that a supervisor has started: import, consume, obey."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from .core.family import enter, load
from .core.worker import GRACE
from .foreground import leave
from .hooks import hooks

__all__ = [
    "RESTART", "Stop", "Target", "ask_restart", "heard", "serve", "served", "tell_serving",
]  # fmt: skip
Target = tuple[str, str]  # queue, task's name
Stop = Callable[[bool, float], object]
RESTART = 75  # the exit code by which a drained process asks to be started again
_ASK = "_fsdf_ask_restart"
_TELL = "_fsdf_tell_serving"
_SERVING, _FAILED = b"s", b"f"  # what a child tells: messages may be fetched; it cannot consume


def serve(
    control: socket.socket,
    targets: Sequence[Target],
    modules: Sequence[str],
    function: str,
    inherited: dict[str, Any],
) -> None:
    """Import `modules`, call `function` ("module:name") with the targets; block until the end."""
    enter()
    start = load(modules, function, inherited)
    hooks.call("start")
    setattr(multiprocessing.current_process(), _TELL, lambda: control.send(_SERVING))
    try:
        stop, join = start(targets)
    except BaseException:
        with suppress(OSError):  # a dead parent ends us anyway
            control.send(_FAILED)
        raise
    tell_serving()
    restart, over = threading.Event(), threading.Event()

    def ask() -> None:
        restart.set()
        _start(leave, partial(stop, True, GRACE), over, RESTART)

    setattr(multiprocessing.current_process(), _ASK, ask)
    _start(_obey, control, stop, over)
    join()
    over.set()
    hooks.call("end")
    if restart.is_set():
        raise SystemExit(RESTART)


def heard(control: socket.socket) -> bytes:
    """Return what the process at the other end has told. Never blocks."""
    control.setblocking(False)
    try:
        return control.recv(1 << 10)
    except OSError:
        return b""


def served(told: bytes) -> bool:
    """Say whether a process that told this had come so far as to fetch messages."""
    return told.startswith(_SERVING) and _FAILED not in told


def tell_serving() -> None:
    """Tell our supervisor, if we have one, that messages are about to be fetched; only once."""
    process = multiprocessing.current_process()
    if tell := getattr(process, _TELL, None):
        setattr(process, _TELL, None)
        with suppress(OSError):
            tell()


def ask_restart() -> None:
    """Drain this process and let its supervisor start another; does nothing if it has none."""
    if ask := getattr(multiprocessing.current_process(), _ASK, None):
        ask()


def _obey(control: socket.socket, stop: Stop, over: threading.Event) -> None:
    """Do what the supervisor says, again when it insists. Blocks."""
    with control.makefile("rb") as orders:
        for order in orders:
            drain, timeout = json.loads(order)
            _start(leave, partial(stop, drain, timeout), over)


def _start(call: Callable[..., object], *args: Any) -> None:
    threading.Thread(target=call, args=args, name="fsdf-control", daemon=True).start()
