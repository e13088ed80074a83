"""`fsdf init` and `fsdf config`."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from .. import frame_file
from ..config import KEYS, Config, Key
from ..engine import default_engine
from ..errors import ConfigurationError
from ..spelling import masked
from .output import Commands, show_rows

__all__ = ["add_to", "explain", "text", "write"]


def add_to(commands: Commands) -> None:
    """Add the commands."""
    init = commands.add_parser("init", help=f"write {frame_file.NAME}, with every key commented")
    init.add_argument("folder", nargs="?", type=Path, help="default: the project's root")
    init.set_defaults(run=_init)
    config = commands.add_parser("config", help="show every configuration key and its source")
    config.add_argument("--json", action="store_true")
    config.set_defaults(run=_config)


def _init(options: Namespace) -> int:
    here = Path.cwd()
    path = write(options.folder or frame_file.project_root(here) or here, KEYS.values())
    print(f"wrote {path}")
    return 0


def _config(options: Namespace) -> int:
    show_rows(explain(default_engine().config), as_json=options.json)
    return 0


def explain(config: Config) -> list[dict[str, str]]:
    """Return every key with its value, fit to be shown, and its source.

    The names in the configuration files that are not in use follow.
    """
    rows = []
    for key in KEYS.values():
        found = config.find(key.name)
        shown = "***" if key.secret and found.value else masked(str(found.value))
        rows.append({"key": key.name, "value": shown, "source": found.source})
    for file in config.files():
        source = f"{file.path} (not a key)"
        rows += [{"key": name, "value": "", "source": source} for name in file.unknown(KEYS)]
    return rows


def text(keys: Iterable[Key]) -> str:
    """Return the content of a new file: every key with its default, commented out."""
    lines = [
        '"""Configuration of fsdf. Remove the # before what you change.',
        "",
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
            draft.write_text(text(keys), encoding="utf-8")
            os.link(draft, path)  # unlike a rename, this fails if the name is taken
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists; it was not changed") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    return path
