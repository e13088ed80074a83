"""What SQLite and the file system say, as errors of ours, in one place."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator

from ..errors import BrokerError, FsdfError, ServerRefused, Unavailable

__all__ = ["harmless", "locked", "translated", "translating"]

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)
_BAD_VALUE = (
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)  # fmt: skip


def _blames_a_value(error: sqlite3.Error) -> bool:
    return isinstance(error, _BAD_VALUE) and "closed" not in str(error)


def harmless(error: sqlite3.Error) -> bool:
    """Say whether the connection may be used on."""
    text = str(error)
    return "locked" in text or "full" in text or _blames_a_value(error)


@contextlib.contextmanager
def translating(path: str) -> Iterator[None]:
    """Raise what the file system says as one of our errors."""
    try:
        yield
    except FsdfError:
        raise
    except OSError as error:
        if error.errno in _PASSING:
            raise Unavailable(f"{path}: {error.strerror}; nothing was stored") from error
        raise _unusable(path, str(error)) from error


def locked(path: str, patience: float) -> Unavailable:
    """Return the error for a lock that another one holds for too long."""
    return Unavailable(
        f"{path} has been locked by another program for {patience:g} s: look for one with an open"
        " transaction on it; nothing was stored"
    )


def _unusable(path: str, why: str) -> ServerRefused:
    return ServerRefused(
        f"{path} cannot be used ({why}): make the file and its folder writable, or set SQLITE_PATH"
        " to another path"
    )


def translated(error: sqlite3.Error, path: str, patience: float) -> FsdfError:
    """Return one of our errors for one of SQLite's; a plain BrokerError blames a value."""
    text = str(error)
    if _blames_a_value(error):
        return BrokerError(f"{path} does not take a value ({text}); nothing was stored")
    if "locked" in text:
        return locked(path, patience)
    if "full" in text:
        return Unavailable(f"the disk of {path} is full: free some space; nothing was stored")
    if "not a database" in text or "malformed" in text:
        return ServerRefused(
            f"{path} is not a sound SQLite database ({text}): restore it, or set SQLITE_PATH to"
            " another path"
        )
    if "readonly" in text or "unable to open" in text:
        return _unusable(path, text)
    return Unavailable(f"{path}: {text}; nothing was stored")
