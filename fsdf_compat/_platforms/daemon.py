"""Descriptors of files, and processes in the background."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from kombu.utils.compat import maybe_fileno

__all__ = ["DaemonContext", "close_open_fds", "detached", "fd_by_path"]

_HOME = __name__.replace("._platforms.daemon", ".platforms")

DAEMON_WORKDIR = "/"


def _public() -> Any:
    # Where tests and users put other functions.
    return import_module(_HOME)


def fd_by_path(paths: Iterable[str]) -> list[int]:
    """Return our open descriptors of these files."""
    files = set()
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            files.add(os.fstat(descriptor)[1:3])
        finally:
            os.close(descriptor)

    def wanted(descriptor: int) -> bool:
        try:
            return os.fstat(descriptor)[1:3] in files
        except OSError:
            return False

    public = _public()
    numbers = public._open_fds()
    if numbers is None:  # all that there may be
        numbers = range(public.get_fdmax(2048))
    return [number for number in numbers if wanted(number)]


def _dev_fd_is_fdescfs() -> bool:
    # Without that file system, /dev/fd has the first three only.
    try:
        return os.stat("/dev").st_dev != os.stat(_public()._FD_DIR).st_dev
    except OSError:
        return False


def _open_fds() -> list[int] | None:
    """Return our open descriptors; None where no folder lists them."""
    public = _public()
    if public.SYSTEM in {"DragonFly", "FreeBSD"} and not public._dev_fd_is_fdescfs():
        return None
    try:
        names = os.listdir(public._FD_DIR)
    except OSError:
        return None
    return sorted(int(name) for name in names if name.isdigit())


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close all descriptors but these: numbers and files."""
    public = _public()
    numbers = public._open_fds()
    if numbers is None:
        public._billiard_close_open_fds(keep)
        return
    kept = set(map(maybe_fileno, keep or ()))
    for number in numbers:
        if number in kept:
            continue
        try:
            os.close(number)
        except OSError as error:
            if error.errno != errno.EBADF:  # closed meanwhile; also the one of the list itself
                raise


class DaemonContext:
    """Goes on in a process without terminal, parent and inherited files.

    `umask` may be a text, octal if it begins with 0. With `fake`, it goes on in this process.
    """

    __module__ = _HOME
    _is_open = False

    def __init__(
        self,
        pidfile: str | None = None,
        workdir: str | None = None,
        umask: int | str | None = None,
        fake: bool = False,
        after_chdir: Callable[[], object] | None = None,
        after_forkers: bool = True,
        **kwargs: Any,
    ) -> None:
        if isinstance(umask, str):
            umask = int(umask, 8 if umask.startswith("0") else 10)
        self.workdir = workdir or DAEMON_WORKDIR
        self.umask = umask
        self.fake = fake
        self.after_chdir = after_chdir
        self.after_forkers = after_forkers
        self.stdfds = (sys.stdin, sys.stdout, sys.stderr)

    def redirect_to_null(self, fd: int | None) -> None:
        """Let a descriptor lead nowhere."""
        if fd is not None:
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)

    def open(self) -> None:
        """Go on in the background; what has called this ends."""
        if self._is_open:
            return
        if not self.fake:
            self._detach()
        os.chdir(self.workdir)
        if self.umask is not None:
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            self._leave_files()
        self._is_open = True

    def _leave_files(self) -> None:
        public = _public()
        # Python may hold the source of random numbers open.
        public.close_open_fds([*self.stdfds, *public.fd_by_path(["/dev/urandom"])])
        for file in self.stdfds:
            self.redirect_to_null(maybe_fileno(file))
        if self.after_forkers and public.mputil is not None:
            public.mputil._run_after_forkers()

    def close(self, *args: Any) -> None:
        """Nothing leads back to the foreground."""
        self._is_open = False

    __enter__ = open
    __exit__ = close

    def _detach(self) -> DaemonContext:
        parent = os.fork()
        if not parent:
            os.setsid()
            # Who leads a session may get a terminal again; its child may not.
            parent = os.fork()
        if parent:
            os._exit(0)
        return self


def detached(
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = 0,
    workdir: str | None = None,
    fake: bool = False,
    **opts: Any,
) -> DaemonContext:
    """Return the context of a daemon that runs as this user.

    What can go wrong does so while there is a terminal to tell of it: a logfile that cannot be
    written, a pidfile of a process that runs.
    """
    public = _public()
    if not public.resource:
        raise RuntimeError("This platform does not support detach.")
    workdir = os.getcwd() if workdir is None else workdir
    public.signals.reset("SIGCLD")
    public.maybe_drop_privileges(uid=uid, gid=gid)

    def check_files() -> None:
        if logfile:
            open(logfile, "a").close()
        if pidfile:
            public._create_pidlock(pidfile).release()

    return public.DaemonContext(umask=umask, workdir=workdir, fake=fake, after_chdir=check_files)
