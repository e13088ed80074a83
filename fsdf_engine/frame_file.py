"""`distributed_frame_config.py`: finds and reads the file of plain assignments."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigurationError

__all__ = ["NAME", "START_FOLDER", "FrameFile", "project_root", "read_all"]

NAME = "distributed_frame_config.py"
START_FOLDER = "FSDF_START_FOLDER"  # the environment variable that names it to child processes
_MARKS = ("pyproject.toml", ".git")
_log = logging.getLogger("fsdf.config")


@dataclass(frozen=True, slots=True)
class FrameFile:
    """A file that was read: its upper-case names."""

    path: Path
    values: Mapping[str, object]

    def unknown(self, known: Collection[str]) -> list[str]:
        """Return the names that are no configuration keys."""
        return [name for name in self.values if name not in known]


def project_root(folder: Path) -> Path | None:
    """Return the nearest folder, upward, that holds a pyproject.toml or a .git."""
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _MARKS):
            return candidate
    return None


def read_all(start: Path | None, known: Collection[str]) -> list[FrameFile]:
    """Read the file beside the start script, then the one in the project root, where they exist.

    Raises:
        ConfigurationError: a file is there and cannot be read or run.
    """
    beside = start or _start_folder()
    root = project_root(Path.cwd())
    found: list[FrameFile] = []
    for folder in (beside, root):
        if folder is None or any(file.path.parent == folder for file in found):
            continue
        path = folder / NAME
        if path.is_file() and (folder == beside or _trusted(path)):
            file = FrameFile(path, _run(path))
            found.append(file)
            if unused := file.unknown(known):
                _log.warning("%s: no configuration keys: %s", path, ", ".join(unused))
    return found


def _start_folder() -> Path | None:
    if named := os.environ.get(START_FOLDER):
        return Path(named)
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute().parent if file else None


def _trusted(path: Path) -> bool:
    """Say whether only we and root can have written a file that was found by walking upward."""
    if not hasattr(os, "geteuid"):
        return True
    facts, user = path.stat(), os.geteuid()
    if (user == 0 or facts.st_uid in (user, 0)) and not facts.st_mode & 0o002:
        return True
    _log.warning("%s was not read: other users can write it", path)
    return False


def _run(path: Path) -> Mapping[str, object]:
    names: dict[str, object] = {"__file__": str(path), "__name__": "distributed_frame_config"}
    try:
        exec(compile(path.read_bytes(), path, "exec"), names)
    except Exception as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error!r}; repair or remove it"
        ) from error
    return {name: value for name, value in names.items() if name.isupper() and name[0] != "_"}
