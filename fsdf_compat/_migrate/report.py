"""The command: reads, and says by file and line what there is to know."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .._upward import upward
from .reading import Use, uses_in
from .table import Finding, finding

__all__ = ["main"]
_ORDER = ("not there", "differs", "works")


def setting_name(name: str) -> str:
    """Return today's name of a setting, "" if it is none; Django's have a prefix."""
    defaults = upward("app.defaults")
    if name in defaults.SETTING_KEYS:
        return name
    if name in defaults._OLD_SETTING_KEYS:
        return str(defaults._TO_NEW_KEY[name])
    new = name.removeprefix("CELERY_").lower()
    return new if name.startswith("CELERY_") and new in defaults.SETTING_KEYS else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is found; 0 if everything works or differs, 1 if something is not there."""
    parser = argparse.ArgumentParser(
        "fsdf migrate check",
        description="What of a project's use of Celery works here; reads only.",
    )
    parser.add_argument("path", nargs="?", default=".", type=Path, help="a folder or a file")
    parser.add_argument("--all", action="store_true", help="list what works, too")
    given = parser.parse_args(argv)
    if not given.path.exists():
        parser.error(f"there is no {given.path}")
    found = [(finding(use.kind, use.name), use) for use in uses_in(given.path, setting_name)]
    for status in _ORDER if given.all else _ORDER[:2]:
        _show(status, [(each, use) for each, use in found if each.status == status], given.path)
    counts = Counter(each.status for each, _ in found)
    print(", ".join(f"{counts[status]} {status}" for status in reversed(_ORDER)))
    return 1 if counts["not there"] else 0


def _show(status: str, found: Sequence[tuple[Finding, Use]], root: Path) -> None:
    if not found:
        return
    print(f"{status}:")
    for each, use in found:
        file = use.file.relative_to(root) if root.is_dir() else use.file
        text = f"  {file}:{use.line}: {use.kind} {use.name}"
        print(text + (f": {each.text} ({each.page})" if each.text else ""))
    print()
