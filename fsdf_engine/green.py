"""Greenlets and native threads side by side: which hub is active, and what works across both.

Under gevent's or eventlet's monkey-patching `threading` means greenlets. What must go on while a
greenlet computes (the keeper), or block in C (a broker's client), needs native threads; these talk
to greenlets through `Event`, `native_lock` and `Hub.call` only.
"""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

__all__ = [
    "Event", "Hub", "NativeThread", "active_hub", "current_thread_id", "hub", "in_native_thread",
    "native_lock", "native_thread", "raise_in_main",
]  # fmt: skip

log = logging.getLogger("fsdf.green")
_here = threading.local()  # marks the threads that native_thread started
_WOKEN, _EXPIRED = object(), object()
_EVER = 1e9  # seconds
_forks = 0  # by how many forks this process is a copy; other threads stay behind at each


def active_hub() -> Literal["gevent", "eventlet"] | None:
    """Name the library that has patched both threads and sockets, if any. Imports neither."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent and gevent.is_module_patched("threading") and gevent.is_module_patched("socket"):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet and eventlet.is_monkey_patched("thread") and eventlet.is_monkey_patched("socket"):
        return "eventlet"
    return None


def _native(name: str) -> Any:
    """Return a function of `_thread` as it was before patching."""
    match active_hub():
        case "gevent":
            return sys.modules["gevent.monkey"].get_original("_thread", name)
        case "eventlet":
            return getattr(sys.modules["eventlet.patcher"].original("_thread"), name)
    return getattr(_thread, name)


def native_lock() -> Any:
    """Make a lock between native threads, whatever is patched.

    A greenlet may hold it for a few instructions, but must not switch under it: waiting for it
    blocks the whole native thread.
    """
    return _native("allocate_lock")()


def current_thread_id() -> int:
    """Return the identity of the native thread, the same for all greenlets in it."""
    return _native("get_ident")()  # type: ignore[no-any-return]


def in_native_thread() -> bool:
    """Say whether the caller runs in a thread of `native_thread`, outside of every hub."""
    return getattr(_here, "native", False)


class Event:
    """An event that native threads and greenlets may set and wait for, in any mixture."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._set = False
        self._waiters: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Say whether it is set."""
        return self._set

    def set(self) -> None:
        """Let every waiter go on. Any thread or greenlet; never blocks."""
        with self._lock:
            self._set = True
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def clear(self) -> None:
        """Let the next waiters block."""
        with self._lock:
            self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block the thread or greenlet until set; False when `timeout` seconds have passed."""
        if self._set:
            return True
        if in_native_thread() or not active_hub():
            return self._wait_in_thread(timeout)
        return self._wait_in_hub(hub(), timeout)

    def _enter(self, wake: Callable[[], None]) -> bool:
        with self._lock:
            if not self._set:
                self._waiters.append(wake)
            return not self._set

    def _leave(self, wake: Callable[[], None]) -> bool:
        """Say whether we left before `set` took us out."""
        with self._lock:
            if known := wake in self._waiters:
                self._waiters.remove(wake)
            return known

    def _wait_in_thread(self, timeout: float | None) -> bool:
        wakeup = native_lock()
        wakeup.acquire()
        if not self._enter(wakeup.release):
            return True
        wait = -1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX))
        return wakeup.acquire(timeout=wait) or not self._leave(wakeup.release)

    def _wait_in_hub(self, here: Hub, timeout: float | None) -> bool:
        greenlet = here.current()

        def wake() -> None:
            here.unpark(greenlet)

        if not self._enter(wake):
            return True
        forks = _forks
        try:
            woken = here.park(timeout)
        except BaseException:  # somebody else's exception, for our caller
            if not self._leave(wake):
                here.await_unpark(forks)
            raise
        if woken or self._leave(wake):
            return woken
        here.await_unpark(forks)  # `set` was faster than our time
        return True


def _new_native_lock(handler: logging.Handler) -> None:
    """Stand for `Handler.createLock`."""
    handler.lock = _native("RLock")()
    logging._register_at_fork_reinit_lock(handler)  # type: ignore[attr-defined]


def _share_logging() -> None:
    """Give logging locks that native threads can wait for.

    The library's own wake nobody in another thread, or not always: sooner or later nothing is
    logged any more, and who logs hangs. What holds its lock just now keeps it.
    """
    if logging.Handler.createLock is _new_native_lock:
        return
    logging.Handler.createLock = _new_native_lock  # type: ignore[assignment, method-assign]
    handlers = (found() for found in list(logging._handlerList))  # type: ignore[attr-defined]
    for handler in filter(None, handlers):
        if handler.lock and not _is_held(handler.lock):
            handler.createLock()
    if not _is_held(logging._lock):  # type: ignore[attr-defined]
        logging._lock = _native("RLock")()  # type: ignore[attr-defined]


def _is_held(lock: Any) -> bool:
    block = getattr(lock, "_block", None)  # of Python's own RLock, which the libraries prefer
    return block is not None and block.locked()


class NativeThread:
    """A thread of the operating system, which no hub knows of."""

    def __init__(self, target: Callable[[], object], name: str) -> None:
        _share_logging()
        self.name, self._target = name, target
        self._ended = Event()
        self.ident: int = _native("start_new_thread")(self._live, ())

    def _live(self) -> None:
        _here.native = True
        try:
            self._target()
        except BaseException:
            log.exception("a native thread died", extra={"native_thread": self.name})
        finally:
            self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        """Block the thread or greenlet until it has ended or the time has passed."""
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        """Say whether it has not ended yet."""
        return not self._ended.is_set()


def native_thread(target: Callable[[], object], name: str) -> threading.Thread | NativeThread:
    """Start a daemon thread of the operating system; it has `join`, `is_alive`, `ident`, `name`."""
    if active_hub():
        return NativeThread(target, name)
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class Hub(ABC):
    """The loop of one native thread that greenlets switch to when they wait."""

    call_later: Callable[..., object]  # as `call`; also from a signal handler, which ends no wait

    def __init__(self, library: Any, hub: Any, call_here: Callable[..., object]) -> None:
        """`library` is the module gevent or eventlet, `hub` its own."""
        self._hub, self._call_here = hub, call_here
        self._ident = current_thread_id()
        self._get_ident = _native("get_ident")
        self.current = library.getcurrent  # the running greenlet
        self.spawn = library.spawn  # start one in this hub; in its native thread
        self.pause = partial(library.sleep, 0)  # let everything else run once, I/O too

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Call `fn(*args)` in the hub itself, soon. Any thread; never blocks."""
        here = self._get_ident() == self._ident
        (self._call_here if here else self.call_later)(fn, *args)

    @abstractmethod
    def park(self, timeout: float | None) -> bool:
        """Switch away until `unpark`; False when the time has passed.

        Whoever comes back otherwise must know whether `unpark` was called meanwhile: then its
        switch is on the way, would end any later wait, and has to be met by `await_unpark`.
        """

    def await_unpark(self, forks: int | None = None) -> None:
        """Meet the switch of an `unpark` that is on its way; what is raised meanwhile comes after.

        Returns within one turn of the hub; at once in a forked child, to which none is on its way
        that was before: `forks` is what `_forks` was when the park began, if that was earlier.
        """
        failure: BaseException | None = None
        met, before = False, _forks if forks is None else forks
        while not met and before == _forks:
            try:
                met = self.park(None)
            except BaseException as error:
                failure = error
        if failure is not None:
            raise failure

    def unpark(self, greenlet: Any) -> None:
        """Switch back to a parked greenlet, soon. Any thread; never blocks."""
        self.call(greenlet.switch, _WOKEN)


class _GeventHub(Hub):
    def __init__(self) -> None:
        import gevent

        super().__init__(gevent, hub := gevent.get_hub(), hub.loop.run_callback)
        self._loop, self.call_later = hub.loop, hub.loop.run_callback_threadsafe

    def park(self, timeout: float | None) -> bool:
        # A native thread may be who wakes us, of whom the loop knows nothing: without a timer it
        # would see no event to come and raise LoopExit.
        timer = self._loop.timer(_EVER if timeout is None else max(0.0, timeout))
        timer.start(self.current().switch, _EXPIRED)
        try:
            return self._hub.switch() is _WOKEN
        finally:
            timer.stop()
            timer.close()


class _EventletHub(Hub):
    def __init__(self) -> None:
        import eventlet
        from eventlet import hubs, patcher

        hub = hubs.get_hub()
        super().__init__(eventlet, hub, partial(hub.schedule_call_global, 0))
        self._trampoline = hubs.trampoline
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # eventlet has no call from other threads: a byte in a socket pair wakes its poll
        self._wakeup, self._receiver = patcher.original("socket").socketpair()
        self._wakeup.setblocking(False)
        self._receiver.setblocking(False)
        eventlet.spawn_n(self._listen)

    def _listen(self) -> None:
        while True:
            self._trampoline(self._receiver, read=True)
            self._receiver.recv(4096)
            while self._calls:
                fn, args = self._calls.popleft()
                self._call_here(fn, *args)

    def call_later(self, fn: Callable[..., object], *args: Any) -> None:
        self._calls.append((fn, args))
        with suppress(BlockingIOError):  # full of bytes that were not read yet: it wakes anyway
            self._wakeup.send(b"\0")

    def park(self, timeout: float | None) -> bool:
        if timeout is None:
            return self._hub.switch() is _WOKEN
        switch = self.current().switch
        timer = self._hub.schedule_call_global(max(0.0, timeout), switch, _EXPIRED)
        try:
            return self._hub.switch() is _WOKEN
        finally:
            timer.cancel()


def hub() -> Hub:
    """Return the active library's hub of the calling native thread; made at the first call."""
    kind: type[Hub]
    if active_hub() == "gevent":
        import gevent

        real, kind = gevent.get_hub(), _GeventHub
    else:
        from eventlet import hubs

        real, kind = hubs.get_hub(), _EventletHub
    ours: Hub | None = real.__dict__.get("_fsdf_hub")
    if ours is None:
        ours = real._fsdf_hub = kind()
    return ours


def raise_in_main(error: BaseException) -> None:
    """Raise in the main thread, whose signal handler calls this; in none of its other greenlets."""
    if active_hub() and (greenlet := (here := hub()).current()).parent is not None:
        while greenlet.parent is not None:
            greenlet = greenlet.parent
        here.call_later(greenlet.throw, error)
    else:
        raise error


def _after_fork() -> None:
    """Give a forked child a hub of its own: eventlet's would share its poll with the parent's."""
    global _forks
    _forks += 1
    if active_hub() == "eventlet":
        from eventlet import hubs

        hubs.use_hub()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
