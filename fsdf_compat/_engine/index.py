"""Which module of a project has a task of a name: found by reading its sources, running none.

The project's root is the worker's folder. What stands there can be imported by a message, so only
what its owner has put there counts: no file or folder that others may write, or that belongs to
anybody but us, root and the root folder's owner; nothing that a link leads to outside; no installed
packages. Pure but for reading files.
"""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

__all__ = ["Ambiguous", "Index", "Place"]
FILES, BYTES = 20_000, 200 << 20  # of the sources of a project
LARGEST = 2 << 20  # bytes of a source
SKIPPED = {"__pycache__", "dist-packages", "node_modules", "site-packages"}
DECORATORS = {"shared_task", "task"}


class Ambiguous(LookupError):
    """Two modules have a task of one name."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task stands: the module to import, from which folder, its file and function."""

    module: str
    folder: str
    path: str
    function: str


class _Task(NamedTuple):
    """A task in a file: its name, "" where that is made of its module's and its function's."""

    name: str
    function: str


class _Source(NamedTuple):
    """A file, as of its last change."""

    stamp: tuple[int, int]
    tasks: Sequence[_Task]


class Index:
    """The tasks of a project. What has been read is read again where it has changed."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()
        self._sources: dict[str, _Source] = {}
        self.is_cut = False  # it has more files, or bytes, than are read

    def find(self, name: str, main: str | None = None) -> Place | None:
        """Return where the task of a name stands. Blocks: it looks through the project's folders.

        A module's name may begin at any of its folders, as its publisher was started there; the
        whole one, from the root, goes before. `main` is the app's name, which stands in the names
        of tasks of scripts.

        Raises:
            Ambiguous: two files have it; names both.
        """
        whole: dict[str, Place] = {}
        parts: dict[str, Place] = {}
        scripts: dict[str, Place] = {}
        start, _, function = name.rpartition(".")
        for path in self._refresh():
            source = self._sources[path]
            places = self._places(path, function)
            for task in source.tasks:
                if task.name == name:
                    whole[path] = replace(places[0], function=task.function)
                elif not task.name and task.function == function:
                    if places[0].module == start:
                        whole[path] = places[0]
                    elif fits := [place for place in places if place.module == start]:
                        parts[path] = fits[0]
                    elif start in ("__main__", main):
                        scripts[path] = places[0]
        found = whole or parts or scripts
        if len(found) > 1:
            first, second, *_ = sorted(found)
            raise Ambiguous(f"the task {name!r} stands in {first} and in {second}; rename one")
        return next(iter(found.values()), None)

    def _refresh(self) -> Sequence[str]:
        """Read what is new or has changed; return the files that have tasks."""
        seen: dict[str, _Source] = {}
        left = BYTES
        self.is_cut = False
        for path, about in self._files():
            if len(seen) >= FILES or about.st_size > left:
                self.is_cut = True
                break
            left -= about.st_size
            stamp = about.st_mtime_ns, about.st_size
            known = self._sources.get(path)
            seen[path] = known if known and known.stamp == stamp else _read(path, stamp)
        self._sources = seen
        return [path for path, source in seen.items() if source.tasks]

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the sources that count, in order of their names."""
        about = os.stat(self.root)
        owners = {0, os.geteuid(), about.st_uid}
        if about.st_mode & stat.S_IWOTH:
            return
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if _counts(folder, name, owners))
            for name in sorted(names):
                path = os.path.join(folder, name)
                own = _own(path, owners) if name.endswith(".py") else None
                if own and stat.S_ISREG(own.st_mode) and own.st_size <= LARGEST:
                    yield path, own

    def _places(self, path: str, function: str) -> list[Place]:
        """Return the ways to import a file, from the root first."""
        parts = Path(path).relative_to(self.root).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        return [
            Place(".".join(parts[n:]), str(self.root.joinpath(*parts[:n])), path, function)
            for n in range(len(parts) or 1)
        ]


def _counts(folder: str, name: str, owners: set[int]) -> bool:
    """Say whether a folder may have sources of the project."""
    path = os.path.join(folder, name)
    if name.startswith(".") or name in SKIPPED or os.path.exists(os.path.join(path, "pyvenv.cfg")):
        return False
    return _own(path, owners) is not None


def _own(path: str, owners: set[int]) -> os.stat_result | None:
    """Return what the system says of a file or folder; None where it is not the project's own."""
    try:
        about = os.lstat(path)
    except OSError:  # it is gone by now
        return None
    if stat.S_ISLNK(about.st_mode) or about.st_mode & stat.S_IWOTH or about.st_uid not in owners:
        return None
    return about


def _read(path: str, stamp: tuple[int, int]) -> _Source:
    try:
        body = ast.parse(Path(path).read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return _Source(stamp, ())  # whoever imports it is told what is wrong with it
    return _Source(stamp, [task for node in _top(body) for task in _tasks(node)])


def _top(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what stands at the top level of a module, also within `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                yield from _top(getattr(node, part, ()))
            for handler in getattr(node, "handlers", ()):
                yield from _top(handler.body)


def _tasks(node: ast.stmt) -> Iterator[_Task]:
    """Yield the tasks that a statement declares."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for decorator in node.decorator_list:
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            called = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
            if called in DECORATORS:
                yield _Task(_literal(getattr(decorator, "keywords", ())), node.name)
    elif isinstance(node, ast.ClassDef) and any(_is_task(base) for base in node.bases):
        given = [
            ast.keyword("name", statement.value)
            for statement in node.body
            if isinstance(statement, ast.Assign)
            and any(isinstance(to, ast.Name) and to.id == "name" for to in statement.targets)
        ]
        yield _Task(_literal(given), node.name)


def _is_task(base: ast.expr) -> bool:
    name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
    return str(name).endswith("Task")


def _literal(keywords: Sequence[ast.keyword]) -> str:
    """Return the text that a keyword `name` is given, "" where it is none."""
    for keyword in keywords:
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
            return keyword.value.value if isinstance(keyword.value.value, str) else ""
    return ""
