"""`fsdf init` and `fsdf config`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from .. import frame_file
from ..config import KEYS, Config, Key
from ..engine import default_engine
from ..errors import ConfigurationError
from ..spelling import masked
from .output import Commands, show_json, show_rows

__all__ = ["add_to", "explain", "places", "text", "write"]

_WRONG = "(wrong)"


def add_to(commands: Commands) -> None:
    """Add the commands."""
    init = commands.add_parser("init", help=f"write {frame_file.NAME}, with every key commented")
    init.add_argument("folder", nargs="?", type=Path, help="default: the project's root")
    init.set_defaults(run=_init)
    config = commands.add_parser("config", help="show every configuration key and its source")
    config.add_argument("--json", action="store_true")
    config.set_defaults(run=_config, checks=False)  # it shows what is wrong itself


def _init(options: Namespace) -> int:
    here = Path.cwd()
    path = write(options.folder or frame_file.project_root(here) or here, KEYS.values())
    print(f"wrote {path}")
    if doubt := frame_file.doubt_of(path):
        print(f"fsdf: it counts beside a start script only: {doubt}", file=sys.stderr)
    return 0


def _config(options: Namespace) -> int:
    config = default_engine().config
    rows, files = explain(config), places(config)
    if options.json:
        show_json({"keys": rows, "files": files})
    else:
        show_rows(rows, as_json=False)
        print()
        show_rows(files, as_json=False)
    return 2 if any(row["value"] == _WRONG for row in rows) else 0


def explain(config: Config) -> list[dict[str, str]]:
    """Return every key with its value, fit to be shown, and its source.

    The names in files and variables that are no keys follow.
    """
    rows = []
    for key in KEYS.values():
        try:
            found = config.find(key.name)
        except frame_file.BrokenFile:
            raise
        except ConfigurationError as error:  # the others are to be seen all the same
            rows.append({"key": key.name, "value": _WRONG, "source": str(error)})
            continue
        shown = "***" if key.secret and found.value else masked(str(found.value))
        rows.append({"key": key.name, "value": shown, "source": found.source})
    for name, source in config.unknown():
        rows.append({"key": name, "value": "", "source": f"{source} (not a key)"})
    return rows


def places(config: Config) -> list[dict[str, str]]:
    """Return where configuration files were looked for, the strongest first."""
    return [
        {"file": str(file.path), "because it is in": file.why, "state": file.state}
        for file in config.files()
    ]


def text(keys: Iterable[Key]) -> str:
    """Return the content of a new file: every key with its default, commented out."""
    lines = [
        '"""Configuration of fsdf. Remove the # before what you change.',
        "",
        "`fsdf config` shows what is in use, and which files are looked for.",
        "Stronger than this file: environment variables named FSDF_<KEY>, patch_frame_config().",
        '"""',
    ]
    for key in keys:
        lines += ["", f"# {key.doc}", f"# {key.name} = {key.default!r}"]
    return "\n".join(lines) + "\n"


def write(folder: Path, keys: Iterable[Key]) -> Path:
    """Write a new file, whole or not at all; never over one that is there.

    Raises:
        ConfigurationError: it exists already, or the folder cannot be written.
    """
    path, draft = folder / frame_file.NAME, folder / f".{frame_file.NAME}.{os.getpid()}"
    try:
        try:
            with open(draft, "x", encoding="utf-8", opener=_private) as file:
                file.write(text(keys))
            os.link(draft, path)  # unlike a rename, this fails if the name is taken
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists; it was not changed") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    return path


def _private(path: str, flags: int) -> int:
    """Nobody else may write it, whatever the mask: it is executed."""
    return os.open(path, flags, 0o644)
