"""What a project uses of Celery, by its source alone: nothing of it is imported."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Use", "uses_in"]
_SKIPPED = {".git", ".hg", ".tox", ".venv", "__pycache__", "node_modules", "site-packages", "venv"}
_COMMAND_FILES = re.compile(
    r"(Dockerfile.*|Procfile.*|Makefile|.*\.(sh|ya?ml|service|conf|ini|toml|md|txt))$"
)
_LARGEST = 1 << 20  # bytes of a file that is read
_CALLS = {"apply_async", "delay", "retry", "send_task", "set", "signature", "subtask"}
_CONTROLS = {"pool_grow", "pool_shrink", "enable_events", "disable_events", "stamp"}
_URL = re.compile(r"^((?:sqla\+)?[a-z]+)(?:\+[a-z0-9]+)?://")
_WORD = re.compile(r"[^\s\"',\[\]]+")


class Use(NamedTuple):
    """One use: of what kind, its name, and where."""

    kind: str
    name: str
    file: Path
    line: int


def uses_in(root: Path, settings: Callable[[str], str]) -> Iterator[Use]:
    """Yield every use under a folder, or in a file.

    `settings` returns today's name of a setting, "" if it is none.
    """
    for path in _files(root):
        if path.suffix == ".py":
            yield from _in_python(path, settings)
        elif _COMMAND_FILES.match(path.name):
            yield from _in_commands(path)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and path.stat().st_size <= _LARGEST:
                yield path


def _in_python(path: Path, settings: Callable[[str], str]) -> Iterator[Use]:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        for kind, name in _of(node, settings):
            yield Use(kind, name, path, getattr(node, "lineno", 0))


def _of(node: ast.AST, settings: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from (("import", alias.name) for alias in node.names if _is_celery(alias.name))
    elif isinstance(node, ast.ImportFrom) and not node.level and _is_celery(node.module or ""):
        yield from (("import", f"{node.module}.{alias.name}") for alias in node.names)
    elif isinstance(node, ast.Call):
        yield from _of_call(node, settings)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and _name(decorator.func) in {"task", "shared_task"}:
                yield from (("task option", k.arg) for k in decorator.keywords if k.arg)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from _of_setting([_name(target) for target in targets], node.value, settings)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values):
            if isinstance(key, ast.Constant):
                yield from _of_setting([str(key.value)], value, settings)


def _is_celery(module: str) -> bool:
    return module.partition(".")[0] in {"celery", "celery_batches"}


def _of_call(node: ast.Call, settings: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    name = _name(node.func)
    if name in _CALLS:
        yield from (("call option", each.arg) for each in node.keywords if each.arg)
    elif name in _CONTROLS:
        yield "call", name
    elif name in {"Celery", "update"}:
        for each in node.keywords:
            key = {"broker": "broker_url", "backend": "result_backend"}.get(each.arg or "")
            yield from _of_setting([key or each.arg or ""], each.value, settings)


def _of_setting(
    names: Collection[str], value: ast.AST | None, settings: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    for name in filter(None, map(settings, names)):
        yield "setting", name
        if value is None or not name.startswith("broker_"):
            continue
        for part in ast.walk(value):  # it may be the default of something in the environment
            text = part.value if isinstance(part, ast.Constant) else ""
            if found := _URL.match(str(text)):
                yield "broker", found[1]


def _name(node: ast.AST) -> str:
    """Return the last part of a dotted name, or the text in the brackets of a subscript."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return getattr(node, "attr", getattr(node, "id", ""))


def _in_commands(path: Path) -> Iterator[Use]:
    """Yield what lines that begin a celery command say: the sub-command, and its options."""
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        words = _WORD.findall(line)
        if "celery" not in words:
            continue
        rest = words[words.index("celery") + 1 :]
        known = [word for word in rest if re.fullmatch(r"[a-z]+", word)]
        for name in known[:2] if rest and rest[0].startswith("-") else known[:1]:
            yield Use("command", name, path, number)
        for word in rest:
            if word.startswith("-"):
                yield Use("command", word.partition("=")[0], path, number)
