"""A lock between the processes of one machine: the kernel wakes who waits, a dead holder is free.

A holder that is merely stopped (SIGSTOP, a debugger) keeps it, so waiting has an end.
"""

from __future__ import annotations

# The C queue: its waiters block natively also where `threading` is patched.
import _queue
import contextlib
import os
import sys
import time
from collections.abc import Iterator

from ..green import native_thread
from .owned import open_file

__all__ = ["ProcessLock", "exclusive"]
SPIN = 0.001  # seconds for which looking again is cheaper than a thread that waits

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int, wait: bool) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        with contextlib.suppress(OSError):  # it was not locked
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def _pause() -> None:
        """Let another process run."""

else:
    import fcntl

    _pause = os.sched_yield

    def _lock(fd: int, wait: bool) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


class _File:
    """An open file; dropping it closes it, which ends its lock."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = open_file(path, os.stat(os.path.dirname(path)).st_mode & 0o666)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


class ProcessLock:
    """One process's access to a lock file; one thread at a time calls it."""

    def __init__(self, path: str) -> None:
        """Open the file, making it if need be.

        Raises:
            OSError: it cannot be opened.
        """
        self._path = path
        self._file = _File(path)

    def take(self, patience: float) -> None:
        """Block until the lock is ours.

        Raises:
            TimeoutError: it was not within `patience` seconds.
        """
        end = time.monotonic() + SPIN
        while not _lock(self._file.fd, wait=False):
            if time.monotonic() > end:
                self._file = _locked_within(self._path, patience)
                return
            _pause()

    def leave(self) -> None:
        """Give the lock back, if it is ours."""
        _unlock(self._file.fd)


def _locked_within(path: str, seconds: float) -> _File:
    """Lock a file of its own in a thread: a wait for a lock cannot be broken off."""
    offers: _queue.SimpleQueue[_File] = _queue.SimpleQueue()
    wanted = [None]  # who pops it decides what becomes of the lock

    def wait() -> None:
        file = _File(path)
        if _lock(file.fd, wait=True):
            with contextlib.suppress(IndexError):
                wanted.pop()
                offers.put(file)

    native_thread(wait, "fsdf-gate")
    try:
        return offers.get(timeout=seconds)
    except _queue.Empty:
        try:
            wanted.pop()
        except IndexError:
            return offers.get()  # it came in this moment
        raise TimeoutError from None
    except BaseException:  # an interrupt: a lock that comes, or has come, is dropped
        with contextlib.suppress(IndexError):
            wanted.pop()
        raise


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Hold a lock between processes for a few instructions; blocks."""
    file = _File(path)
    _lock(file.fd, wait=True)
    try:
        yield
    finally:
        _unlock(file.fd)
