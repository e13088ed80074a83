"""A script whose last line is `consume()` keeps a whole interpreter until its consumers stop.

When the main thread ends, the interpreter first shuts down `concurrent.futures`; from then on
executors, `asyncio.to_thread` and name look-ups fail, and on newer versions no thread starts. Hooks
of `threading._register_atexit` run before that, last registered first, so ours waits in time.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import signals

if TYPE_CHECKING:
    from socket import socket

__all__ = ["held", "hold_exit"]

_TOOL = 4  # our number in `sys.monitoring`; the standard library names 0 to 2 and 5
held: set[object] = set()  # what keeps the interpreter from ending
# Made at the first use: a program may import us before gevent or eventlet patches sockets.
_pair: tuple[socket, socket] | None = None


def _after_fork() -> None:
    """A forked child has none of its parent's consumers."""
    global _pair
    held.clear()
    _pair = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def hold_exit() -> Callable[[], None]:
    """Keep the main thread from ending the interpreter until the returned function is called."""
    global _pair
    if signals.interactive():
        return lambda: None
    token = object()
    if _pair is None:
        import concurrent.futures.thread  # noqa: F401  its hook must be registered before ours
        from socket import socketpair

        _pair = receiver, sender = socketpair()
        sender.setblocking(False)
        # Who patches `threading` may have put the `_shutdown` of another copy of it there.
        end: Any = threading._shutdown  # type: ignore[attr-defined]
        own = getattr(end, "__globals__", {}).get("_register_atexit")
        (own or threading._register_atexit)(_wait, receiver, sender)  # type: ignore[attr-defined]
        atexit.register(
            _wait, receiver, sender
        )  # if our signal handler raises on the way to the other
        if sys.version_info[:2] == (3, 12):  # it starts no thread once it has begun to end
            _wait_at_return(receiver, sender)
        signals.listen(sender.fileno())
    sender = _pair[1]
    held.add(token)

    def release() -> None:
        held.discard(token)
        with suppress(OSError):  # full: then it wakes anyway; or closed: then nobody waits
            sender.send(b"\0")

    return release


def _wait_at_return(receiver: socket, sender: socket) -> None:
    """Wait already when the script's code ends, if that is what the main thread runs."""
    frame: Any = sys._current_frames().get(threading.main_thread().ident or 0, sys._getframe())
    wait: Any = _wait
    while frame.f_back is not None:
        frame = frame.f_back
    tools: Any = sys.monitoring  # type: ignore[attr-defined]
    if frame.f_globals.get("__name__") in ("__main__", "runpy") and not tools.get_tool(_TOOL):
        code, ends = frame.f_code, (tools.events.PY_RETURN, tools.events.PY_UNWIND)
        tools.use_tool_id(_TOOL, "fsdf")
        for end in ends:
            tools.register_callback(
                _TOOL, end, lambda c, _, what: c is code and wait(receiver, sender, what)
            )
        tools.set_local_events(_TOOL, code, ends[0])
        tools.set_events(_TOOL, ends[1])  # the interpreter has it for all code or none


def _wait(receiver: socket, sender: socket, error: object = None) -> None:
    """Block until nothing holds the exit; a signal's exception does not cut the drain short.

    `error` is what the main thread's code has ended by, where that is known.
    """
    while held:
        try:
            if signals.main_ends(sender.fileno(), error):
                signals.drain()
            # A signal's handler runs after `recv`, even if the signal came just before it blocks.
            while held:
                if signals.by_others(receiver.recv(4096)):
                    signals.drain()
        except (KeyboardInterrupt, SystemExit):  # our handler has begun the drain
            continue
    signals.unlisten()
    receiver.close()
    sender.close()
