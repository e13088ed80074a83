"""The worker's side of the zygote: a context of `multiprocessing` whose processes it forks.

As with spawn and forkserver, what a child is to do is pickled for it, and descriptors go over a
socket. So locks and shared memory that are made for this context reach the child as they do there.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import popen_fork, reduction, util
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext, set_spawning_popen
from multiprocessing.process import BaseProcess
from typing import Any

from ..core.family import start_by
from ..core.signals import held_back
from ..hooks import hooks
from .process import ANOTHER, CHILD, ID, Sent, forked, serve

__all__ = ["Zygotes", "start_zygote"]
log = logging.getLogger("fsdf.zygote")
SET_SUBREAPER, GET_SUBREAPER = 36, 37  # of prctl(2)
KEPT = 3  # a zygote, its spare, and the next child
PATIENCE = 10.0  # seconds until a zygote that does not answer is killed
PARTING = 1.0  # seconds that it has to end


def start_zygote() -> Callable[[], None]:
    """Have this process's children forked from a zygote, where nothing else is said of them.

    For a command, when it has imported what its children need, and has no thread yet. The hooks of
    `at_child(fork=...)` are called first. Where threads are left, or the system does not allow it,
    a warning says so, and the fork server starts them. Call what it returns at the command's end.
    Main thread.
    """
    try:
        zygotes = Zygotes()
    except (OSError, RuntimeError) as error:
        log.warning("the fork server starts children instead of a zygote: %s", error)
        start_by(multiprocessing.get_context(_instead()))
        return lambda: start_by(None)
    start_by(zygotes)
    return zygotes.close


def _prepare() -> None:
    """Raise RuntimeError or OSError where there can be none; else make this process fit for it."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        raise RuntimeError("only Linux has what it needs")
    os.close(os.pidfd_open(os.getpid()))  # fails with an old kernel, or in a sandbox
    hooks.call("fork")
    if len(sys._current_frames()) > 1:
        names = {thread.name for thread in threading.enumerate()} - {"MainThread"}
        raise RuntimeError(f"imports have started threads ({', '.join(sorted(names))})")
    gc.collect()
    gc.freeze()  # so that collections in children don't copy what is never freed
    util._flush_std_streams()  # type: ignore[attr-defined]


def _instead() -> str:
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in known else "spawn"


# ------------------------------------------------------------------ the worker's side


class Zygotes(BaseContext):
    """Processes that are all alike: the first forks others, the last becomes the next child.

    Any thread may start children. One thread watches: it buries those that die, and lets the first
    that lives fork as many as are missing.
    """

    _name = "zygote"

    def __init__(self) -> None:
        """Fork them, with no other thread than the caller's.

        Raises:
            OSError: the system gives no process or socket.
            RuntimeError: it has threads, or is no Linux.
        """
        _prepare()
        self._changed = threading.Condition()  # of the rest
        self._living: list[_Zygote] = []
        self._used: list[_Zygote] = []  # became children; the thread forgets them
        self._thread: threading.Thread | None = None
        self._bell = -1  # wakes the thread; never closed, so its number is nobody else's
        self._error: OSError | None = None  # why there are not enough
        self._closing = False
        ours, theirs = socket.socketpair()
        with held_back(), theirs:
            pid = forked(partial(serve, theirs, ours))
        self._living = [_Zygote(pid, ours)]
        with self._changed:
            self._complete()

    def Process(self, **arguments: Any) -> BaseProcess:  # noqa: N802
        """Make a process that will be forked."""
        return _Process(self._begin, arguments)

    def close(self) -> None:
        """End all but those that became children, which are started otherwise from now on."""
        start_by(None)
        with self._changed:
            self._closing = True
            for zygote in self._living:
                zygote.control.close()
            thread = self._watched()
        thread.join(PARTING)
        with self._changed:
            for zygote in self._living:
                zygote.kill()
        thread.join()

    def _begin(self, process: BaseProcess) -> Any:
        try:
            return _Popen(process, self._take)
        except _Gone:
            context: Any = multiprocessing.get_context(_instead())
            return context.Process._Popen(process)

    def _take(self, descriptors: Sequence[int]) -> int:
        """Return the id of a new child, which is given these. Blocks while there is none.

        Raises:
            OSError: the system gives no more processes.
            _Gone: there is nobody who could fork one.
        """
        with self._changed:
            self._error = None
            self._watched()
            while True:
                self._changed.wait_for(
                    lambda: self._error or self._closing or len(self._living) in (0, KEPT)
                )
                if self._closing or not self._living:
                    raise _Gone
                if self._error:
                    raise OSError(*self._error.args)
                child = self._living[-1]
                if child.become(descriptors):
                    break
                child.kill()
                self._changed.wait_for(lambda: child not in self._living)  # noqa: B023
            self._living.remove(child)
            self._used.append(child)
            os.eventfd_write(self._bell, 1)
            return child.pid

    def _watched(self) -> threading.Thread:
        """Return the thread, awake; the first use is after the fork. Call it with the lock held."""
        if self._thread is None:
            self._bell = os.eventfd(0)
            self._thread = threading.Thread(target=self._watch, name="fsdf-zygote", daemon=True)
            self._thread.start()
        os.eventfd_write(self._bell, 1)
        return self._thread

    def _watch(self) -> None:
        while living := [*self._living]:
            ended = wait([self._bell, *(zygote.end for zygote in living)])
            with self._changed:
                if self._bell in ended:
                    os.eventfd_read(self._bell)
                for zygote in living:
                    if zygote.end in ended and zygote in self._living:
                        self._bury(zygote)
                while self._used:
                    self._used.pop().forget()
                self._complete()
                self._changed.notify_all()

    def _bury(self, zygote: _Zygote) -> None:
        self._living.remove(zygote)
        code = zygote.bury()
        if self._closing:
            return
        log.warning("zygote %d ended with code %s", zygote.pid, code)
        if not self._living:
            log.error("there is no zygote any more; children are started by %s", _instead())

    def _complete(self) -> None:
        """Have those forked that are missing. Blocks for milliseconds; call it with the lock."""
        while 0 < len(self._living) < KEPT and not self._closing:
            try:
                ours, theirs = socket.socketpair()
                with theirs:
                    pid = self._living[0].fork(theirs.fileno())
                self._living.append(_Zygote(pid, ours))
            except _Gone:
                self._living[0].kill()  # it is buried in its turn
                return
            except OSError as error:
                log.warning("the zygote cannot fork: %s", error)
                self._error = error
                return


class _Gone(Exception):
    """The zygote has died, or there is none left."""


class _Zygote:
    """One of them, and our end of the socket between us."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid, self.control, self.end = pid, control, os.pidfd_open(pid)
        control.settimeout(PATIENCE)
        with contextlib.suppress(OSError):  # it is dead, and will be buried
            control.send(b"\0")  # it is ours now

    def fork(self, control: int) -> int:
        """Let it fork another one; return its id. Blocks until that is our child.

        Raises:
            OSError: the system gives no process.
            _Gone: it does not answer.
        """
        try:
            with _adopting():
                socket.send_fds(self.control, [ANOTHER], [control])
                [answer] = ID.unpack(self.control.recv(ID.size))
        except Exception as error:
            raise _Gone from error
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return int(answer)

    def become(self, descriptors: Sequence[int]) -> bool:
        """Let it be a child and have these; False when it is dead."""
        try:
            return socket.send_fds(self.control, [CHILD], descriptors) == len(CHILD)
        except OSError:
            return False

    def kill(self) -> None:
        """End it now, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.end, signal.SIGKILL)

    def bury(self) -> int | None:
        """Forget what has ended; return its exit code, if that is left to us."""
        self.forget()
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody waits for whatever ends
            return None

    def forget(self) -> None:
        """Free what belongs to it."""
        os.close(self.end)
        self.control.close()


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Be the parent of what is orphaned below us meanwhile; later it would be zombies of ours."""
    before = ctypes.c_int()
    prctl = ctypes.CDLL(None).prctl
    prctl(GET_SUBREAPER, ctypes.byref(before))
    prctl(SET_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(SET_SUBREAPER, before.value)


class _Process(BaseProcess):
    """A process of `multiprocessing` that is started by a function of ours."""

    _start_method = None  # what the child starts itself, it starts as is usual

    def __init__(self, begin: Callable[[BaseProcess], Any], arguments: dict[str, Any]) -> None:
        super().__init__(**arguments)
        self._begin = begin

    def _Popen(self, process: BaseProcess) -> Any:  # noqa: N802
        return self._begin(process)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_begin"}


class _Popen(popen_fork.Popen):
    """What `multiprocessing` knows of such a process, which is our child as any other."""

    method = "zygote"

    def __init__(self, process: BaseProcess, take: Callable[[Sequence[int]], int]) -> None:
        self._descriptors: list[int] = []
        self._take = take
        super().__init__(process)

    def duplicate_for_child(self, fd: int) -> int:
        """Send a descriptor; return its place among those sent."""
        self._descriptors.append(fd)
        return len(self._descriptors) - 1

    def DupFd(self, place: int) -> Sent:  # noqa: N802
        """Return what stands for it in the pickle."""
        return Sent(place)

    def _launch(self, process: BaseProcess) -> None:
        pickled = io.BytesIO()
        set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            reduction.dump({"sys_path": [*sys.path]}, pickled)  # all else it has from the zygote
            reduction.dump(process, pickled)
        finally:
            set_spawning_popen(None)
        theirs, ours = os.pipe()  # the child reads what it is to do, and later that we have ended
        try:
            self.pid = self._take([theirs, *self._descriptors])
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.sentinel = os.pidfd_open(self.pid)
        self.finalizer = util.Finalize(self, util.close_fds, (ours, self.sentinel))  # type: ignore[attr-defined]
        with contextlib.suppress(BrokenPipeError), open(ours, "wb", closefd=False) as pipe:
            pipe.write(pickled.getbuffer())
