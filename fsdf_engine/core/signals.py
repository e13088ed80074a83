"""Signals: nothing else of ours sets a handler.

Consumers in a program of somebody else's take the place of default handlers only (`on_signals`).
Who waits for signals, as a command that owns its process, has them written to a socket (`take`,
`write_to`). A pool's child leaves them to its parent (`leave_to_parent`). What is forked from any
of them has the handlers that were there before.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..green import raise_in_main
from .main_thread import NUDGE, in_main_thread, look_up

__all__ = [
    "INTERRUPT", "by_others", "drain", "give_back", "held_back", "interactive", "is_echo",
    "leave_to_parent", "let_nudge", "let_through", "listen", "main_ends", "numbers", "on_interrupt",
    "on_signals", "stand", "take", "unlisten", "write_to",
]  # fmt: skip
log = logging.getLogger("fsdf.worker")
INTERRUPT = getattr(signal, "SIGUSR1", None)  # tells a child to raise something in its run
ECHO = 0.1  # seconds; process managers signal a process and then its group
_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)

# All of this is the main thread's, but for `_stops`, which only grows.
_stops: list[Callable[[bool], object]] = []
_asked = False  # to drain; the next signal ends at once
_ours: dict[int, tuple[Any, Any]] = {}  # by number: our handler, and the one that was before
_wakeup = -1  # the descriptor that we have the interpreter write signals to
_others = False  # the program handles SIGTERM itself, or has done so
_unseen = False  # what it handles is not written to us
_seen: dict[int, float] = {}  # when a signal came that was no echo
_masked = threading.local()  # the forking thread's signal mask, while it forks


def numbers(*further: str) -> list[int]:
    """Return those that ask a process to end, and further ones, where this system has them."""
    names = ("SIGTERM", "SIGINT", "SIGBREAK", *further)
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def is_echo(number: int) -> bool:
    """Say whether the same signal came just before, and means the same."""
    now = time.monotonic()
    if echo := now - _seen.get(number, -ECHO) < ECHO:
        return echo
    _seen[number] = now
    return False


def _set(number: int, handler: Any) -> None:
    """Set a handler of ours. Main thread, else ValueError."""
    before = signal.signal(number, handler)
    _ours[number] = handler, _ours[number][1] if _is_ours(number, before) else before


def _is_ours(number: int, handler: Any) -> bool:
    return number in _ours and _ours[number][0] is handler


def give_back() -> None:
    """Put back what was there before our handlers; what others have set since then stays."""
    for number, (handler, before) in _ours.items():
        if signal.getsignal(number) is handler:
            if _is_runners(before):
                before = signal.default_int_handler
            signal.signal(number, signal.SIG_DFL if before is None else before)
    _ours.clear()


def take(number: int, handler: Any, *, shared: bool = False) -> None:
    """Set a handler; with `shared` only in the place of a default one, or of ours. Main thread."""
    before = signal.getsignal(number)
    if not shared or _is_nobodys(before) or _is_ours(number, before):
        _set(number, handler)


def write_to(descriptor: int) -> int:
    """Have the numbers of signals written to a descriptor; return the one before. Main thread."""
    global _wakeup
    before, _wakeup = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False), descriptor
    return before


def _wake(descriptor: int) -> None:
    """Have the numbers of signals written to a descriptor unless somebody has them already."""
    global _wakeup, _unseen
    before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    if before == -1:
        _wakeup = descriptor
    else:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        _unseen = _unseen or before != _wakeup


# ------------------------------------------------------------------ in a program of somebody else's


def interactive() -> bool:
    """Say whether a person types at this interpreter: then Ctrl-C and its end are theirs."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def on_signals(stop: Callable[[bool], object]) -> None:
    """Drain at SIGTERM and SIGINT, where these have their default handlers. Any thread.

    The first signal calls `stop(True)` in a thread and raises SystemExit or KeyboardInterrupt in
    the main thread, which then waits at its end; a later one calls `stop(False)`. Outside the main
    thread the handlers are set as soon as that one executes Python code again; blocks a little.
    """
    global _asked
    if interactive():
        return
    if stop not in _stops:
        _stops.append(stop)
    _asked = False
    in_main_thread(stand)


def listen(descriptor: int) -> None:
    """Have the numbers of signals written to a socket if nobody else has them. Any thread."""
    in_main_thread(lambda: _wake(descriptor))


def unlisten() -> None:
    """Have signals written nowhere, unless others have them. Main thread."""
    global _wakeup
    if (before := signal.set_wakeup_fd(-1)) != _wakeup:
        signal.set_wakeup_fd(before)
    _wakeup = -1


def stand() -> None:
    """Take the place of the default handlers, and of the one that `asyncio.run` sets itself."""
    global _others
    for number in numbers():
        before = signal.getsignal(number)
        if _is_nobodys(before):
            if number in _ours:  # somebody has taken our place, and is gone
                _others = True
            _set(number, _handle)
        elif before != signal.SIG_IGN and not _is_ours(number, before):
            _others = True


def _is_nobodys(handler: Any) -> bool:
    return handler in _DEFAULT or _is_runners(handler)


def _is_runners(handler: Any) -> bool:
    return getattr(getattr(handler, "func", None), "__qualname__", "") == "Runner._on_sigint"


def _handle(number: int, frame: FrameType | None) -> None:
    if is_echo(number):
        return
    fast = _asked
    name, text = signal.Signals(number).name, "draining; once more ends at once"
    drain(fast=fast)
    # In a thread: whoever has stopped reading our log keeps no signal from being followed.
    what = "ending at once" if fast else text
    _thread.start_new_thread(lambda: log.warning("%s: %s", name, what), ())
    if _is_runners(before := _ours[number][1]):
        before(number, frame)  # cancels the main coroutine; once more, or at its end, it raises
    elif number == signal.SIGINT:
        raise_in_main(KeyboardInterrupt())
    else:
        raise_in_main(SystemExit(128 + number if fast else 0))


def drain(*, fast: bool = False) -> None:
    """Stop all that works in this process, in threads; with `fast` at once."""
    global _asked
    _asked = True
    for stop in _stops:  # no Thread, whose start waits: we may be in a hub, which must not
        _thread.start_new_thread(stop, (not fast,))


def main_ends(descriptor: int, error: object = None) -> bool:
    """Say whether the main thread's code has ended because the process is to end.

    So it is after a Ctrl-C that nobody has caught (`error`, or what the interpreter has shown), and
    where the program handles signals itself and we have not seen them: a server, whose end this is.
    From now on they drain, and are written to the descriptor. Main thread.
    """
    shown = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    stand()
    before = write_to(descriptor)
    by_itself = _others and (_unseen or before != descriptor)
    return (by_itself or isinstance(error or shown, KeyboardInterrupt)) and not _asked


def by_others(written: bytes) -> bool:
    """Say whether one of these signals asks to end and has gone to the program's own handler."""
    handlers = [signal.getsignal(number) for number in numbers() if number in written]
    return not _asked and any(handler is not _handle for handler in handlers)


def let_nudge() -> None:
    """Let `nudge` work, where nobody else has a use for its signal. Main thread."""
    if NUDGE is not None and signal.getsignal(NUDGE) == signal.SIG_DFL:
        _set(NUDGE, look_up)


# ------------------------------------------------------------------ between parents and children


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold back what asks to end from the processes that this thread starts meanwhile.

    So none of them dies of it before it has said what it does then, by `let_through`. A fork server
    that is started here never sees it; a child whose fork server dies is killed.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start would let through what we hold back
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers("SIGUSR1"))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Let the signals come that the parent has held back at our start."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers("SIGUSR1"))


def leave_to_parent() -> None:
    """Do nothing at a signal to end, which our parent has got, too, and tells us what it means.

    Handlers, unlike ignoring, are not passed on to programs that user code starts.
    """
    for number in numbers():
        _set(number, _ignore)


def on_interrupt(handler: Callable[[int, FrameType | None], None]) -> None:
    """Let a child of a pool handle INTERRUPT, where this system has it. Before `let_through`."""
    if INTERRUPT is not None:
        _set(INTERRUPT, handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle a signal that is seen otherwise, or is not for us."""


# ------------------------------------------------------------------ forks


def _hold_back() -> None:
    _masked.before = signal.pthread_sigmask(signal.SIG_BLOCK, list(_ours))


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masked.before)


def _leave() -> None:
    """A forked child's signals are its own, and end it as is usual."""
    global _asked, _others, _unseen
    give_back()
    unlisten()
    _stops.clear()
    _seen.clear()
    _asked = _others = _unseen = False
    _let_through()  # one that came meanwhile was for the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_leave)
