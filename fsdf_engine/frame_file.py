"""`distributed_frame_config.py`: finds and reads the file of plain assignments.

One rule however a program is started. Looked into are, the strongest first: the folder of the start
script, the current folder, the project's root. Every file that is there is read. The start script
is the main module's file, unless that is a tool's (the command `fsdf`, pytest, gunicorn, `flask`:
it lies among the interpreter's scripts or installed packages). The project's root is the nearest
folder, from the current one upward, with one of `MARKS`, or where none has one with the file.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConfigurationError

__all__ = [
    "MARKS",
    "NAME",
    "START_FOLDER",
    "BrokenFile",
    "FrameFile",
    "doubt_of",
    "look",
    "project_root",
]

NAME = "distributed_frame_config.py"
START_FOLDER = "FSDF_START_FOLDER"  # the environment variable that names it to child processes
MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


class BrokenFile(ConfigurationError):
    """The file could not be read, or raised; its own exception is the cause."""


@dataclass(frozen=True, slots=True)
class FrameFile:
    """A place where the file was looked for: its upper-case names, if it was read."""

    path: Path
    why: str  # that this folder is looked into
    state: str  # "read", "not there", or why it was not read
    values: Mapping[str, object] = field(default_factory=dict, repr=False)  # may hold passwords


def project_root(folder: Path) -> Path | None:
    """Return the nearest folder, upward, with a mark of a root, or else with the file itself."""
    for marks in (MARKS, (NAME,)):
        for candidate in (folder, *folder.parents):
            if any((candidate / mark).exists() for mark in marks):
                return candidate
    return None


def look(start: Path | None) -> list[FrameFile]:
    """Look into each folder and read what is there; `start` replaces the start script's folder.

    Raises:
        BrokenFile: a file is there and cannot be read, or it raised.
    """
    found: list[FrameFile] = []
    for folder, why, trusted in _folders(start):
        if any(_same(file.path.parent, folder) for file in found):
            continue
        found.append(_look_at(folder / NAME, why, trusted))
    return found


def _look_at(path: Path, why: str, trusted: bool) -> FrameFile:
    try:
        if doubt := "" if trusted else doubt_of(path):
            return FrameFile(path, why, f"not read: {doubt}")
        return FrameFile(path, why, "read", _run(path))
    except (FileNotFoundError, NotADirectoryError):
        return FrameFile(path, why, "not there")


def _folders(start: Path | None) -> Iterator[tuple[Path, str, bool]]:
    if beside := start or _start_folder():
        yield beside, "the start script's folder", True  # the script beside it is executed, too
    try:
        here = Path.cwd()
    except OSError:  # it has been deleted
        return
    yield here, "the current folder", False
    if root := project_root(here):
        yield root, "the project's root", False


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _start_folder() -> Path | None:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(file).absolute() if file else None
    if path and not (_is_of_a_tool(path) or _is_of_a_tool(path.resolve())):
        return path.parent
    named = os.environ.get(START_FOLDER)  # a script that a run starts has a folder of its own
    return Path(named) if named else None


def _is_of_a_tool(main: Path) -> bool:
    """Say whether the main module's file is a program's that runs the user's code."""
    paths = sysconfig.get_paths()
    users = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    if main.parent in (Path(paths["scripts"]), Path(users), Path(sys.executable).parent):
        return True
    libraries = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    packages = {"site-packages", "dist-packages"}  # of another environment, too
    return (
        not packages.isdisjoint(main.parts)
        or any(main.is_relative_to(folder) for folder in libraries)
        or main.is_relative_to(Path(__file__).parent)
    )


def doubt_of(path: Path) -> str:
    """Say why the file may be another user's, who could make us run it; "" if it cannot be.

    A file in a folder that we merely are in must be ours or root's, as must a link to it. It may be
    of the folder's owner, too, where we are root (a project mounted into a container) or import
    from that folder anyway (a service whose code belongs to who deploys it).
    """
    if not hasattr(os, "geteuid"):
        return ""
    folder, us = path.parent.stat(), os.geteuid()
    open_to_all = bool(folder.st_mode & stat.S_IWOTH)
    both = path.stat(), path.lstat()
    if open_to_all and not folder.st_mode & stat.S_ISVTX:
        return "other users can write its folder"
    owners = {us, 0}
    if not open_to_all and (us == 0 or _imports_from(path.parent)):
        owners.add(folder.st_uid)
    for facts in both:
        link = stat.S_ISLNK(facts.st_mode)  # its mode means nothing
        if facts.st_uid not in owners or (facts.st_mode & stat.S_IWOTH and not link):
            return "other users can write it; change its owner or mode, or say FSDF_<KEY>"
    return ""


def _imports_from(folder: Path) -> bool:
    return any(_same(Path(entry or os.curdir).absolute(), folder) for entry in sys.path)


def _run(path: Path) -> Mapping[str, object]:
    names: dict[str, object] = {"__file__": str(path), "__name__": "distributed_frame_config"}
    try:
        exec(compile(path.read_bytes(), path, "exec"), names)
    except FileNotFoundError as error:
        if error.filename == str(path):
            raise
        raise _broken(path, error) from error
    except Exception as error:
        raise _broken(path, error) from error
    return {name: value for name, value in names.items() if name.isupper() and name[0] != "_"}


def _broken(path: Path, error: Exception) -> BrokenFile:
    return BrokenFile(f"{path} cannot be read: {error!r}; repair or remove it")
