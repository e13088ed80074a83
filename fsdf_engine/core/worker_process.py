"""What runs in a process that a supervisor has started: import, consume, obey."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .family import enter, load
from .worker import GRACE, tune

__all__ = ["RESTART", "Target", "ask_restart", "consume_targets", "serve"]
Target = tuple[str, str]  # queue, task's name
Stop = Callable[[bool, float], object]
RESTART = 75  # the exit code by which a drained process asks to be started again
_ASK = "_fsdf_ask_restart"


def serve(
    control: socket.socket,
    targets: Sequence[Target],
    modules: Sequence[str],
    function: str,
    inherited: dict[str, Any],
) -> None:
    """Import `modules`, call `function` ("module:name") with the targets; block until the end."""
    enter()
    stop, join = load(modules, function, inherited)(targets)
    restart = threading.Event()

    def ask() -> None:
        restart.set()
        threading.Thread(target=stop, args=(True, GRACE), name="fsdf-stop").start()

    setattr(multiprocessing.current_process(), _ASK, ask)
    thread = threading.Thread(target=_obey, args=(control, stop), name="fsdf-control", daemon=True)
    thread.start()
    join()
    if restart.is_set():
        raise SystemExit(RESTART)


def ask_restart() -> None:
    """Drain this process and let its supervisor start another; does nothing if it has none."""
    if ask := getattr(multiprocessing.current_process(), _ASK, None):
        ask()


def _obey(control: socket.socket, stop: Stop) -> None:
    """Do what the supervisor says, again when it insists. Blocks."""
    with control.makefile("rb") as orders:
        for order in orders:
            drain, timeout = json.loads(order)
            threading.Thread(target=stop, args=(drain, timeout), name="fsdf-stop").start()


def consume_targets(targets: Sequence[Target]) -> tuple[Stop, Callable[[], None]]:
    """Start the default engine's consumers of these targets; return how to stop and join them."""
    from ..engine import default_engine

    engine = default_engine()
    handles = [engine.consume_named(queue, name) for queue, name in targets]
    tune()

    def join() -> None:
        for handle in handles:
            handle.join()

    return engine.stop, join
