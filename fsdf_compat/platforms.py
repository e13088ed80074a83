"""What differs between systems: signals, users, daemons, descriptors, titles of processes."""

from __future__ import annotations

import atexit
import errno
import math
import numbers
import os
import platform as _platform
import signal as _signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from billiard.compat import close_open_fds as _billiard_close_open_fds
from billiard.compat import get_fdmax
from billiard.process import current_process
from billiard.util import set_pdeathsig as _set_pdeathsig
from kombu.utils.compat import maybe_fileno
from kombu.utils.encoding import safe_str

from ._platforms.daemon import (
    DAEMON_WORKDIR,
    DaemonContext,
    _dev_fd_is_fdescfs,
    _open_fds,
    close_open_fds,
    detached,
    fd_by_path,
)
from ._platforms.pidfile import PIDFILE_FLAGS, PIDFILE_MODE, LockFailed, Pidfile
from ._platforms.users import (
    ASSUMING_ROOT,
    ROOT_DISALLOWED,
    ROOT_DISCOURAGED,
    _setgroups_hack,
    check_privileges,
    initgroups,
    maybe_drop_privileges,
    parse_gid,
    parse_uid,
    setgid,
    setgroups,
    setuid,
)
from .local import try_import

__all__ = [
    "EX_OK", "EX_FAILURE", "EX_UNAVAILABLE", "EX_USAGE", "SYSTEM", "IS_macOS", "IS_WINDOWS",
    "SIGMAP", "pyimplementation", "LockFailed", "get_fdmax", "Pidfile", "create_pidlock",
    "close_open_fds", "DaemonContext", "detached", "parse_uid", "parse_gid", "setgroups",
    "initgroups", "setgid", "setuid", "maybe_drop_privileges", "signals", "signal_name",
    "set_process_title", "set_mp_process_title", "get_errno_name", "ignore_errno", "fd_by_path",
    "isatty",
    # What tests and third parties replace or read, too.
    "ASSUMING_ROOT", "DAEMON_WORKDIR", "EX_CANTCREAT", "PIDFILE_FLAGS", "PIDFILE_MODE",
    "PIDLOCKED", "ROOT_DISALLOWED", "ROOT_DISCOURAGED", "_billiard_close_open_fds",
    "_create_pidlock", "_dev_fd_is_fdescfs", "_open_fds", "_setgroups_hack", "check_privileges",
    "maybe_fileno",
]  # fmt: skip

_setproctitle = try_import("setproctitle")
resource = try_import("resource")
pwd = try_import("pwd")
grp = try_import("grp")
mputil = try_import("multiprocessing.util")

EX_OK = getattr(os, "EX_OK", 0)
EX_FAILURE = 1
EX_UNAVAILABLE = getattr(os, "EX_UNAVAILABLE", 69)
EX_USAGE = getattr(os, "EX_USAGE", 64)
EX_CANTCREAT = getattr(os, "EX_CANTCREAT", 73)

SYSTEM = _platform.system()
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

# Lists our open descriptors.
_FD_DIR = "/dev/fd" if IS_macOS or SYSTEM in {"DragonFly", "FreeBSD"} else "/proc/self/fd"

PIDFile = Pidfile

PIDLOCKED = """ERROR: Pidfile ({0}) already exists.
Seems we're already running? (pid: {1})"""

SIGNAMES = {name for name in dir(_signal) if name.startswith("SIG") and "_" not in name}
SIGMAP = {getattr(_signal, name): name for name in SIGNAMES}


def isatty(fh: Any) -> Any:
    """Tell if a file is a terminal; None for what is no file."""
    try:
        return fh.isatty()
    except AttributeError:
        return None


def pyimplementation() -> str:
    """Return the name of this Python: "CPython"."""
    return _platform.python_implementation()


def create_pidlock(pidfile: str) -> Pidfile:
    """Write a file with our number, in the place of a stale one; it goes with the process.

    Raises: SystemExit: the process that it names runs.
    """
    lock = _create_pidlock(pidfile)
    atexit.register(lock.release)
    return lock


def _create_pidlock(pidfile: str) -> Pidfile:
    lock = Pidfile(pidfile)
    if lock.is_locked() and not lock.remove_if_stale():
        print(PIDLOCKED.format(pidfile, lock.read_pid()), file=sys.stderr)
        raise SystemExit(EX_CANTCREAT)
    lock.acquire()
    return lock


if hasattr(_signal, "setitimer"):

    def _arm_alarm(seconds: float) -> None:
        _signal.setitimer(_signal.ITIMER_REAL, seconds)

else:

    def _arm_alarm(seconds: float) -> None:
        _signal.alarm(math.ceil(seconds))


class Signals:
    """The handlers of signals by name, with and without "SIG": `signals["INT"] = handler`.

    What this system has no signal for, and threads may not set, is ignored.
    """

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def arm_alarm(self, seconds: float) -> None:
        """Send ALRM that many seconds later."""
        _arm_alarm(seconds)

    def reset_alarm(self) -> Any:
        """Send no ALRM."""
        return _signal.alarm(0)

    def supported(self, name: Any) -> bool:
        """Tell if this system has such a signal."""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: Any) -> int:
        """Return the number of a signal.

        Raises: AttributeError: this system has none of this name. TypeError: it is no name.
        """
        if isinstance(name, numbers.Integral):
            return int(name)
        if not isinstance(name, str) or not name.isupper():
            raise TypeError("signal name must be uppercase string.")
        return getattr(_signal, f"SIG{name.removeprefix('SIG')}")

    def reset(self, *signal_names: Any) -> None:
        """Let the system handle these."""
        self.update((name, self.default) for name in signal_names)

    def ignore(self, *names: Any) -> None:
        """Let nobody handle these."""
        self.update((name, self.ignored) for name in names)

    def __getitem__(self, name: Any) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: Any, handler: Any) -> None:
        with suppress(AttributeError, ValueError):
            _signal.signal(self.signum(name), handler)

    def update(
        self,
        _d_: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None = None,
        **sigmap: Any,
    ) -> None:
        """Set several handlers."""
        for name, handler in {**dict(_d_ or {}), **sigmap}.items():
            self[name] = handler


signals = Signals()
get_signal = signals.signum
install_signal_handler = signals.__setitem__
reset_signal = signals.reset
ignore_signal = signals.ignore


def signal_name(signum: int) -> str:
    """Return the name of a signal, without "SIG"."""
    return SIGMAP[signum].removeprefix("SIG")


def strargv(argv: list[str]) -> str:
    """Return the arguments of a command line; those of `manage.py` have a command before them."""
    return " ".join(argv[2 if "manage" in argv[0] else 1 :])


def set_pdeathsig(name: Any) -> None:
    """Have this process killed when its parent ends, where the system can."""
    if signals.supported("SIGKILL"):
        with suppress(OSError):
            _set_pdeathsig(signals.signum("SIGKILL"))


def set_process_title(progname: str, info: str | None = None) -> str:
    """Return the title of this process, and let `ps` show it if setproctitle is installed."""
    title = f"[{progname}] {info}" if info else f"[{progname}]"
    if _setproctitle:
        _setproctitle.setproctitle(safe_str(title))
    return title


def set_mp_process_title(
    progname: str, info: str | None = None, hostname: str | None = None
) -> str | None:
    """Set the title, with the name of this process in its pool. `NOSETPS` switches it off."""
    if os.environ.get("NOSETPS"):
        return None
    if hostname:
        progname = f"{progname}: {hostname}"
    name = current_process().name if current_process else "MainProcess"
    return set_process_title(f"{progname}:{name}", info=info)


def get_errno_name(n: Any) -> Any:
    """Return the number of an error's name; a number as it is."""
    return getattr(errno, n) if isinstance(n, str) else n


@contextmanager
def ignore_errno(*errnos: Any, **kwargs: Any) -> Iterator[None]:
    """Ignore these errors of the system, by name or number; `types` are their exceptions."""
    ignored = set(map(get_errno_name, errnos))
    try:
        yield
    except kwargs.get("types") or Exception as error:  # noqa: B030
        if not hasattr(error, "errno") or error.errno not in ignored:
            raise
