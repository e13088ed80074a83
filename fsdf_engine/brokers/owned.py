"""Files beside a queue's own, opened so that nobody can lead us elsewhere.

Where others can write into a folder they can put a link there before we make our file. So links are
not followed, and what belongs to somebody else is refused: to us, or to the owner of the folder.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import ServerRefused

__all__ = ["check_place", "identity", "make_folder", "open_file"]

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_USERS = hasattr(os, "geteuid")  # Windows has other means


def _refused(path: str, why: str) -> ServerRefused:
    return ServerRefused(
        f"{path} {why}, so it may lead elsewhere: remove it, or set SQLITE_PATH to a file in a"
        " folder that only you can write"
    )


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same path; None where there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def open_file(path: str, mode: int) -> int:
    """Open a file to read and write, making it if need be; return its descriptor.

    Raises:
        ServerRefused: it is a link, no plain file, has other names too, or belongs to others.
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, _FLAGS, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or os.path.islink(path):
            raise _refused(path, "is a link") from error
        raise
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            raise _refused(path, "is no plain file of one name")
        _check_owner(path, facts, os.stat(os.path.dirname(path)).st_uid)
        if _USERS and facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) != mode:
            os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_folder(path: str, mode: int, owner: int) -> None:
    """Make a folder, or see that it is one of ours, or of `owner`, with no more rights than these.

    Raises:
        ServerRefused: it is a link, no folder, or belongs to others.
        OSError: it cannot be made.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    facts = os.lstat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise _refused(path, "is a link, or no folder")
    _check_owner(path, facts, owner)
    if _USERS and facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) != mode:
        os.chmod(path, mode)


def _check_owner(path: str, facts: os.stat_result, owner: int) -> None:
    if _USERS and facts.st_uid not in (os.geteuid(), owner):
        raise _refused(path, f"belongs to the user {facts.st_uid}")


def check_place(path: str) -> None:
    """See that nobody else has put a queue's file, or one of its side files, where we expect ours.

    A file of another user in a folder of his is a shared one; a link of our own is one.

    Raises:
        ServerRefused: it is another one's, in a folder that anybody can write.
    """
    if not _USERS:
        return
    mine, folder = (os.geteuid(), 0), os.stat(os.path.dirname(path))
    open_to_all = bool(folder.st_mode & stat.S_IWOTH)
    for name in (path, f"{path}-wal", f"{path}-shm", f"{path}-journal"):
        try:
            facts = os.lstat(name)
        except OSError:
            continue  # not there, or to be told by who opens it
        link = stat.S_ISLNK(facts.st_mode)
        if link and (name != path or facts.st_uid not in (*mine, folder.st_uid)):
            raise _refused(name, "is a link")
        if open_to_all and facts.st_uid != mine[0]:
            raise _refused(name, f"belongs to the user {facts.st_uid}")
