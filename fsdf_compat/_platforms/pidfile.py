"""A file that says which process runs."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

__all__ = ["LockFailed", "Pidfile"]

_HOME = __name__.replace("._platforms.pidfile", ".platforms")

PIDFILE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY
PIDFILE_MODE = 0o644


class LockFailed(Exception):
    """The file could not be written."""

    __module__ = _HOME


class Pidfile:
    """A file that exists while its process runs."""

    __module__ = _HOME
    path: str

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Write the file.

        Raises: LockFailed: it exists, or cannot be written.
        """
        try:
            self.write_pid()
        except OSError as error:
            raise LockFailed(str(error)).with_traceback(error.__traceback__) from error
        return self

    def is_locked(self) -> bool:
        """Tell if the file exists."""
        return os.path.exists(self.path)

    def release(self, *args: Any) -> None:
        """Remove the file."""
        self.remove()

    __enter__ = acquire
    __exit__ = release

    def read_pid(self) -> int | None:
        """Return the process that the file names; None if there is no file.

        Raises: ValueError: it names none.
        """
        try:
            with open(self.path) as file:
                line = file.readline()
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        if line.strip() == line:  # somebody writes it just now, and the newline comes last
            raise ValueError(f"Partial or invalid pidfile {self.path}")
        try:
            return int(line)
        except ValueError:
            raise ValueError(f"pidfile {self.path} contents invalid.") from None

    def remove(self) -> None:
        """Remove the file, if it is there and we may."""
        try:
            os.unlink(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES):
                raise

    def remove_if_stale(self) -> bool:
        """Remove the file unless another process runs that it names; tell if it was removed."""
        try:
            pid = self.read_pid()
        except ValueError:
            print("Broken pidfile found - Removing it.", file=sys.stderr)
            self.remove()
            return True
        # In a container, the process before us had our number.
        if pid and pid != os.getpid():
            if not _gone(pid):
                return False
            print("Stale pidfile exists - Removing it.", file=sys.stderr)
        self.remove()
        return True

    def write_pid(self) -> None:
        """Write the file; nobody else can meanwhile.

        Raises: OSError: it exists, or cannot be written. LockFailed: it holds something else.
        """
        content = f"{os.getpid()}\n"
        descriptor = os.open(self.path, PIDFILE_FLAGS, PIDFILE_MODE)
        file = os.fdopen(descriptor, "w")
        try:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        finally:
            file.close()
        again = open(self.path)  # noqa: SIM115  closed below, as a file of any kind
        try:
            if again.read() != content:
                raise LockFailed("Inconsistency: Pidfile content doesn't match at re-read")
        finally:
            again.close()


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        # Where we may not ask, the number is another user's now.
        return error.errno in (errno.ESRCH, errno.EPERM)
    except SystemError:  # Windows
        return True
    return False
