"""Consumers of a process together: stopped, waited for, and what signals mean meanwhile."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Protocol

from .core.context import current_job
from .core.worker import FLUSH, UNWIND, ConsumerHandle
from .stop_signals import StopSignals

__all__ = ["end_fast", "join_all", "leave", "run", "stop_all", "tell_drain", "tune", "work"]
log = logging.getLogger("fsdf.worker")


class _Stopping(Protocol):
    """What can be stopped: an engine."""

    def stop(self, drain: bool = True, timeout: float = ..., /) -> None: ...


def stop_all(handles: Iterable[ConsumerHandle], *, drain: bool, timeout: float) -> None:
    """Stop several consumers at the same time. Blocks, but returns at once inside a run."""
    threads = [
        threading.Thread(target=h.stop, args=(drain, timeout), name="fsdf-stop") for h in handles
    ]
    for thread in threads:
        thread.start()
    if current_job.get(None) is not None:
        return
    for thread in threads:
        thread.join()


def join_all(handles: Collection[ConsumerHandle]) -> None:
    """Block until these consumers have stopped; what they were lent this thread for runs here."""
    lent = [handle for handle in handles if handle.serve]
    if lent:  # several may share the pool that has it
        threading.Thread(target=_close, args=(lent, handles), name="fsdf-lent", daemon=True).start()
    pid = os.getpid()
    for handle in lent:
        try:
            handle.serve()  # type: ignore[misc]
        except SystemExit as end:
            if os.getpid() == pid:  # a signal's handler has raised it
                raise
            # A fork in a run has come back: all above is its parent's.
            end_fast((), end.code if isinstance(end.code, int) else int(end.code is not None))
    for handle in handles:
        handle.join()


def _close(lent: Iterable[ConsumerHandle], handles: Iterable[ConsumerHandle]) -> None:
    for handle in handles:
        handle.join()
    for handle in lent:
        handle.pool.close(0.0)


def work(
    engine: _Stopping, handles: Collection[ConsumerHandle], signals: StopSignals, grace: float
) -> None:
    """Block until the consumers have stopped; their runs may be here. For a worker command.

    A first signal drains them, a second one ends the process.
    """
    over = threading.Event()

    def obey() -> None:
        if signals.next():
            _start(leave, partial(engine.stop, True, grace), over)
            tell_drain(grace)
            if number := signals.next():
                end_fast(handles, 128 + number)

    obeying = _start(obey)
    join_all(handles)
    over.set()
    signals.tell_end()
    obeying.join()  # for ever, if it ends the process


def run(engine: _Stopping, handles: Collection[ConsumerHandle], grace: float) -> None:
    """Block until the consumers have stopped, in a program of somebody else's.

    In the main thread a first signal drains, a second one interrupts; then KeyboardInterrupt or
    SystemExit is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        return join_all(handles)
    signals, came, over = StopSignals(shared=True), list[int](), threading.Event()

    def obey() -> None:
        while number := signals.next():
            came.append(number)
            if len(came) == 1:
                _start(leave, partial(engine.stop, True, grace), over)
                tell_drain(grace)
            else:
                _start(leave, partial(engine.stop, False), over, 128 + number)

    obeying = _start(obey)
    try:
        join_all(handles)
    finally:
        over.set()
        signals.tell_end()
        obeying.join()
        signals.close()
    if came[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt
    if came:
        raise SystemExit(0 if len(came) == 1 else 128 + came[-1])
    return None


def leave(stop: Callable[[], object], over: threading.Event, code: int = 0) -> None:
    """Stop, and end the process if a run keeps its main thread from being `over`. Blocks."""
    stop()
    if not over.wait(FLUSH):
        log.error("a run in the main thread does not end; the process does")
        end_fast((), code)


def tell_drain(grace: float) -> None:
    """Log in a thread: who has stopped reading the log keeps no signal from being followed."""
    _start(lambda: log.warning("draining for up to %g s; a second signal ends at once", grace))


def end_fast(handles: Iterable[ConsumerHandle], code: int = 1) -> None:
    """End the process now, having released what can be released.

    For a worker command, and for a fork of one that has nothing to come back to.
    """
    working, ended = list(handles), threading.Event()

    def release() -> None:
        stop_all(working, drain=False, timeout=0.0)
        for handle in working:
            handle.pool.close(UNWIND)  # so that no child leaves a semaphore behind
        ended.set()

    threading.Thread(target=release, daemon=True).start()
    ended.wait(2 * FLUSH)
    os._exit(code)


def tune() -> None:
    """Make a process that only works faster: what lives now is never collected again.

    The young generation grows, too: 1.27 times the messages per CPU second, measured.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _start(call: Callable[..., object], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=call, args=args, name="fsdf-stop", daemon=True)
    thread.start()
    return thread
