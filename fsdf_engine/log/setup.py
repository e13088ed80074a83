"""Decides where log records go, and only where nobody else has decided it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

from ..errors import ConfigurationError
from .console import ConsoleHandler, is_terminal
from .files import rotating_file
from .record import JsonFormatter, RunContext, TextFormatter

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["FORMATS", "console_if_unconfigured", "install", "install_as_configured"]
FORMATS = ("text", "json")


def install(
    level: int | str = "INFO",
    *,
    format: str = "text",
    file: str = "",
    file_size: int = 100_000_000,
    file_count: int = 10,
) -> Callable[[], None]:
    """Log to stderr, and to `file` if given; return a function that takes it back.

    At a terminal stderr gets colours and links, elsewhere plain text; JSON wherever `format` is
    "json". The file is rotated at `file_size` bytes, `file_count` old ones are kept, and other
    processes may write it, too. Does nothing where the root logger has handlers already.

    Raises:
        ConfigurationError: there is no such format, or the file cannot be written.
        MissingExtra: what writes the file is not installed.
    """
    root = logging.getLogger()
    if root.handlers:
        return lambda: None
    added, before = _handlers(format, file, file_size, file_count), root.level
    for handler in added:
        root.addHandler(handler)
    root.setLevel(level)

    def restore() -> None:
        for handler in added:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before)

    return restore


def install_as_configured(config: Config) -> Callable[[], None]:
    """Log as the configuration says, as the worker command does; see `install`."""
    return install(config.text("LOG_LEVEL"), **_configured(config))


def console_if_unconfigured(config: Config) -> None:
    """Let people see what the engine tells in a program that configured no logging at all.

    Only the engine's own loggers get handlers. They fall silent for good as soon as the program
    configures logging itself.
    """
    tree = logging.getLogger("fsdf")
    if logging.root.handlers or tree.handlers or not tree.propagate or tree.disabled:
        return
    added = _handlers(**_configured(config))
    if given := tree.level == logging.NOTSET:
        tree.setLevel(config.text("LOG_LEVEL"))
    for handler in added:
        handler.addFilter(_Yield(added, given))
        tree.addHandler(handler)


class _Yield(logging.Filter):
    """Lets records pass as long as the program has no handlers of its own."""

    def __init__(self, ours: Sequence[logging.Handler], has_level: bool) -> None:
        super().__init__()
        self._ours, self._has_level, self._silent = ours, has_level, False

    def filter(self, record: logging.LogRecord) -> bool:
        tree = logging.getLogger("fsdf")
        if not self._silent and (logging.root.handlers or len(tree.handlers) > len(self._ours)):
            self._silent = True
            if self._has_level:
                tree.setLevel(logging.NOTSET)
        return not self._silent


def _handlers(format: str, file: str, file_size: int, file_count: int) -> Sequence[logging.Handler]:
    if format not in FORMATS:
        raise ConfigurationError(f"unknown log format {format!r}; give one of {', '.join(FORMATS)}")
    console: logging.Handler = logging.StreamHandler()
    if format == "text" and is_terminal():
        console = ConsoleHandler()
    found = [console]
    if file:
        found.append(rotating_file(file, file_size, file_count))
    for handler in found:
        handler.addFilter(RunContext())
        handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    return found


class _Where(TypedDict):
    format: str
    file: str
    file_size: int
    file_count: int


def _configured(config: Config) -> _Where:
    return {
        "format": config.text("LOG_FORMAT"),
        "file": config.text("LOG_FILE"),
        "file_size": int(config.number("LOG_FILE_SIZE")),
        "file_count": int(config.number("LOG_FILE_COUNT")),
    }
