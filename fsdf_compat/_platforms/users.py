"""Users, groups, and what a process may do."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Collection
from importlib import import_module
from typing import Any

from ..exceptions import SecurityError, SecurityWarning

__all__ = [
    "check_privileges", "initgroups", "maybe_drop_privileges", "parse_gid", "parse_uid", "setgid",
    "setgroups", "setuid",
]  # fmt: skip

ROOT_DISALLOWED = """\
This worker runs as root and accepts pickle: whoever can send it a message can
do anything on this machine. Give it another user by --uid, or take pickle out
of accept_content. C_FORCE_ROOT=1 in the environment lets it run all the same.

User information: uid={uid} euid={euid} gid={gid} egid={egid}
"""

ROOT_DISCOURAGED = """\
You're running the worker with superuser privileges: every task may do anything
on this machine. Give it another user by the --uid option.

User information: uid={uid} euid={euid} gid={gid} egid={egid}
"""

ASSUMING_ROOT = "The group of this process has no name: it is taken for one that may do anything."


def _public() -> Any:
    # Where tests and users put other functions.
    return import_module(__name__.replace("._platforms.users", ".platforms"))


def parse_uid(uid: Any) -> int:
    """Return the number of a user.

    Raises: KeyError: there is none of this name.
    """
    try:
        return int(uid)
    except ValueError:
        pass
    try:
        return _public().pwd.getpwnam(uid).pw_uid
    except (AttributeError, KeyError):
        raise KeyError(f"User does not exist: {uid}") from None


def parse_gid(gid: Any) -> int:
    """Return the number of a group.

    Raises: KeyError: there is none of this name.
    """
    try:
        return int(gid)
    except ValueError:
        pass
    try:
        return _public().grp.getgrnam(gid).gr_gid
    except (AttributeError, KeyError):
        raise KeyError(f"Group does not exist: {gid}") from None


def _setgroups_hack(groups: list[int]) -> None:
    """Set as many groups as the system takes; it tells how many by refusing."""
    groups = list(groups)
    while True:
        try:
            os.setgroups(groups)
            return
        except (ValueError, OSError) as error:
            if len(groups) <= 1 or getattr(error, "errno", errno.EINVAL) != errno.EINVAL:
                raise
            groups.pop()


def setgroups(groups: list[int]) -> None:
    """Set the groups of this process. Who may not, may keep what all belongs to these."""
    try:
        most = os.sysconf("SC_NGROUPS_MAX")
    except (AttributeError, OSError, ValueError):
        most = None
    try:
        _public()._setgroups_hack(groups[:most])
    except OSError as error:
        if error.errno != errno.EPERM or not set(os.getgroups()) <= set(groups):
            raise


def initgroups(uid: int, gid: int) -> None:
    """Set the groups of a user."""
    pwd = _public().pwd
    if pwd:
        os.initgroups(pwd.getpwuid(uid)[0], gid)


def setgid(gid: Any) -> None:
    """Become a member of this group, by its name, too."""
    os.setgid(_public().parse_gid(gid))


def setuid(uid: Any) -> None:
    """Become this user, by its name, too."""
    os.setuid(_public().parse_uid(uid))


def maybe_drop_privileges(uid: Any = None, gid: Any = None) -> None:
    """Become this user, with its group unless another is given; or a member of the group only.

    Raises: SecurityError: the way back to root is not closed.
    """
    if sys.platform == "win32":
        return
    if os.geteuid() and not os.getuid():
        raise SecurityError("contact support")
    public = _public()
    uid = uid and public.parse_uid(uid)
    gid = gid and public.parse_gid(gid)
    if uid:
        _become(public, uid, gid)
    elif gid:
        public.setgid(gid)
    if uid and not os.getuid() and not os.geteuid():
        raise SecurityError("Still root uid after drop privileges!")
    if gid and not os.getgid() and not os.getegid():
        raise SecurityError("Still root gid after drop privileges!")


def _become(public: Any, uid: int, gid: int | None) -> None:
    if not gid and public.pwd:
        gid = public.pwd.getpwuid(uid).pw_gid
    # The groups first: another user may not change them any more; and `setgid` may clear the list
    # that `initgroups` makes.
    public.setgid(gid)
    public.initgroups(uid, gid)
    public.setuid(uid)
    try:
        public.setuid(0)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    else:
        raise SecurityError("non-root user able to restore privileges after setuid.")


def check_privileges(accept_content: Collection[str]) -> None:
    """Warn of a process that may do anything.

    Raises: SecurityError: and whose messages may, too, as they are unpickled.
    """
    public = _public()
    grp, pwd, os = public.grp, public.pwd, public.os
    if grp is None or pwd is None:
        return
    names = ("uid", "gid", "euid", "egid")
    missing = [name for name in names if not hasattr(os, f"get{name}")]
    if missing and hasattr(os, "fchown"):
        raise SecurityError("suspicious platform, contact support")
    ids = {name: 65535 if name in missing else getattr(os, f"get{name}")() for name in names}
    pickles = bool({"pickle", "application/group-python-serialize"} & set(accept_content))
    try:
        groups = {grp.getgrgid(ids["gid"])[0], grp.getgrgid(ids["egid"])[0]}
    except KeyError:
        warnings.warn(SecurityWarning(ASSUMING_ROOT), stacklevel=2)
        _warn_or_raise(pickles, ids)
        return
    if 0 in (ids["uid"], ids["euid"]) or groups & {"sudo", "wheel"}:
        _warn_or_raise(pickles, ids)


def _warn_or_raise(pickles: bool, ids: dict[str, int]) -> None:
    if pickles and not _public().os.environ.get("C_FORCE_ROOT"):
        raise SecurityError(ROOT_DISALLOWED.format(**ids))
    warnings.warn(SecurityWarning(ROOT_DISCOURAGED.format(**ids)), stacklevel=3)
