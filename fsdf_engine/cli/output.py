"""What the commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..errors import ConfigurationError
from .arguments import Parser

__all__ = ["Commands", "agreed", "plain", "show_json", "show_rows", "table"]

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def show_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows that all have the same keys; nothing but JSON with `as_json`."""
    if as_json:
        show_json(rows)
        return
    for line in table(rows):
        print(line)


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return lines with aligned columns, the first with their names; no wider than a terminal."""
    if not rows:
        return []
    cells = [list(rows[0]), *([plain(value, "") for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in cells)
    return [line.rstrip()[:limit] for line in lines]


def show_json(value: object) -> None:
    """Print one value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def agreed(question: str, yes: bool) -> bool:
    """Ask before something is deleted, unless `yes` was given. Blocks.

    Raises:
        ConfigurationError: there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} there is no terminal to ask; say --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def plain(value: object, kept: str = "\n\t") -> str:
    """Return text that cannot steer the terminal: bodies come from anywhere."""
    return "".join(c if c.isprintable() or c in kept else " " for c in str(value))
