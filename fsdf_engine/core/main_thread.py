"""What other threads want of the main thread: calls that only it may make, and that it looks up."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from ..green import Event

__all__ = ["NUDGE", "in_main_thread", "look_up", "nudge"]
NUDGE = getattr(signal, "SIGURG", None)  # by default it is ignored, and hardly anybody sends it


def look_up(number: int, frame: FrameType | None) -> None:
    """Handle NUDGE: whatever waits for the interpreter happens as this is called."""


def nudge() -> None:
    """Have the main thread execute Python code, if it waits in a call and `look_up` is set.

    Any thread; does not block.
    """
    main = threading.main_thread().ident or 0
    if NUDGE is not None and signal.getsignal(NUDGE) is look_up and main in sys._current_frames():
        signal.pthread_kill(main, NUDGE)


def in_main_thread(call: Callable[[], None]) -> None:
    """Call what only the main thread may: now if that is this one, else when it runs next.

    It is woken if it waits for a lock, as `join` does; in another call of C code (`time.sleep`,
    `recv`) it is not reached before that returns. Blocks until it was, for 0.1 s at most.
    """
    try:
        return call()
    except ValueError:
        import ctypes
    done, python = Event(), ctypes.pythonapi
    _pending.append((call, done))
    main = threading.main_thread().ident or 0
    wakes = hasattr(signal, "SIGURG") and signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    for _ in range(10):  # it may be about to wait just when it is woken
        python.Py_AddPendingCall(_run_pending(), None)
        if wakes and main in sys._current_frames():  # under a hub it has another name
            # A handler that does nothing, where the default is to ignore: only a wait notices.
            python.PyOS_setsig(signal.SIGURG, ctypes.CDLL(None).abs)
            signal.pthread_kill(main, signal.SIGURG)
        nudge()
        if done.wait(0.01):
            break
    return None


_pending: deque[tuple[Callable[[], None], Event]] = deque()


@cache
def _run_pending() -> Any:
    """Return a C function that makes the pending calls."""
    import ctypes

    def run(_: object) -> int:
        while _pending:
            call, done = _pending.popleft()
            call()
            done.set()
        return 0

    return ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(run)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pending.clear)
