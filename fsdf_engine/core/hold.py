"""A script whose last line is `consume()` keeps a whole interpreter until its consumers stop.

When the main thread ends, the interpreter first shuts down `concurrent.futures`; from then on
executors, `asyncio.to_thread` and name look-ups fail, and on newer versions no thread starts. Hooks
of `threading._register_atexit` run before that, last registered first, so ours waits in time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

__all__ = ["hold_exit"]

_held: set[object] = set()
# Made at the first use: a program may import us before gevent or eventlet patches threading.
_changed: threading.Condition | None = None


def _after_fork() -> None:
    """A forked child has none of its parent's consumers."""
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def hold_exit() -> Callable[[], None]:
    """Keep the main thread from ending the interpreter until the returned function is called."""
    global _changed
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return lambda: None
    token = object()
    if _changed is None:
        import concurrent.futures.thread  # noqa: F401  its hook must be registered before ours

        _changed = threading.Condition()
        threading._register_atexit(_wait, _changed)  # type: ignore[attr-defined]
    changed = _changed
    _held.add(token)

    def release() -> None:
        with changed:
            _held.discard(token)
            changed.notify_all()

    return release


def _wait(changed: threading.Condition) -> None:
    """Block until nothing holds the exit; a signal's exception does not cut the drain short."""
    while True:
        try:
            with changed:
                while _held:
                    changed.wait()
            return
        except (KeyboardInterrupt, SystemExit):  # our handler has begun the drain
            continue
