"""Loggers: `celery`, under it `celery.task` and `celery.worker`; their colours, and a file that
writes to one.
"""

from __future__ import annotations

import logging
import numbers
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from billiard import process, util
from kombu.log import LOG_LEVELS
from kombu.log import get_logger as _get_logger
from kombu.utils.encoding import safe_str

from .term import colored

__all__ = [
    "ColorFormatter", "LoggingProxy", "base_logger", "set_in_sighandler", "in_sighandler",
    "get_logger", "get_task_logger", "mlevel", "get_multiprocessing_logger",
    "reset_multiprocessing_logger", "LOG_LEVELS",
]  # fmt: skip

RESERVED_LOGGER_NAMES = {"celery", "celery.task"}

base_logger = logger = _get_logger("celery")

_in_sighandler = False


def set_in_sighandler(value: bool) -> None:
    """Say whether a signal handler runs: then nothing goes through loggers, which have locks."""
    global _in_sighandler
    _in_sighandler = value


@contextmanager
def in_sighandler() -> Iterator[None]:
    """Mark a piece of code as a signal handler."""
    set_in_sighandler(True)
    try:
        yield
    finally:
        set_in_sighandler(False)


def iter_open_logger_fds() -> Iterator[Any]:
    """Yield the streams of all handlers, each once."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {
        handler: None
        for each in loggers
        if isinstance(each, logging.Logger)
        for handler in each.handlers
    }
    return (handler.stream for handler in handlers if hasattr(handler, "stream"))


def logger_isa(l: Any, p: Any, max: int = 1000) -> bool:
    """Tell if `p` is the logger or one of those above it."""
    seen: set[Any] = set()
    above = l
    while above:
        if above is p or above == p:
            return True
        if above in seen:
            raise RuntimeError(f"the parents of logger {l.name!r} form a circle")
        if len(seen) >= max:
            raise RuntimeError(f"logger {l.name!r} has more than {max} parents")
        seen.add(above)
        above = above.parent
    return False


def _under(parent: logging.Logger, child: logging.Logger) -> logging.Logger:
    if not logger_isa(child, parent):
        child.parent = parent
    return child


def get_logger(name: str) -> logging.Logger:
    """Return the logger; one that has another parent than the root is put under `celery`."""
    found = _get_logger(name)
    if found is base_logger or logging.root in (found, found.parent):
        return found
    return _under(base_logger, found)


task_logger = get_logger("celery.task")
worker_logger = get_logger("celery.worker")


def get_task_logger(name: str) -> logging.Logger:
    """Return the logger of a module of tasks, under `celery.task`."""
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved!")
    return _under(task_logger, get_logger(name))


def mlevel(level: Any) -> Any:
    """Return the number of a level's name."""
    return level if not level or isinstance(level, numbers.Integral) else LOG_LEVELS[level.upper()]


class ColorFormatter(logging.Formatter):
    """A formatter that gives severities their colours."""

    COLORS = colored().names
    colors = {
        "DEBUG": COLORS["blue"],
        "WARNING": COLORS["yellow"],
        "ERROR": COLORS["red"],
        "CRITICAL": COLORS["magenta"],
    }

    def __init__(
        self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None
    ) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def formatException(self, ei: Any) -> str:
        return super().formatException(ei if isinstance(ei, tuple) or not ei else sys.exc_info())

    def format(self, record: logging.LogRecord) -> str:
        text: Any = super().format(record)
        color = self.colors.get(record.levelname)
        if not color or not self.use_color:
            return safe_str(text)
        try:
            return str(color(safe_str(text))) if isinstance(text, str) else safe_str(color(text))
        except Exception as error:
            return self._unrepresentable(record, text, error)

    def _unrepresentable(self, record: Any, text: Any, error: Exception) -> str:
        # The record goes on to other handlers, with what it had.
        before = record.msg, record.exc_info
        einfo = sys.exc_info() if before[1] == 1 else before[1]
        record.msg, record.exc_info = f"<Unrepresentable {type(text)!r}: {error!r}>", 1
        try:
            return super().format(record)
        finally:
            record.msg, record.exc_info = before[0], einfo


class LoggingProxy:
    """A file whose text goes to a logger, as `sys.stdout` of a worker does."""

    mode = "w"
    name: str | None = None
    closed = False
    loglevel: Any = logging.ERROR
    _thread = threading.local()

    def __init__(self, logger: logging.Logger, loglevel: Any = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or logger.level or self.loglevel)
        self._safewrap_handlers()

    def _safewrap_handlers(self) -> None:
        # A handler that fails tells stderr, which may be this file.
        for handler in self.logger.handlers:
            handler.handleError = _tell_real_stderr  # type: ignore[method-assign]

    def write(self, data: Any) -> int:
        """Log a text without its newline; return its length, 0 if it was not logged."""
        if _in_sighandler:
            text = safe_str(data)
            print(text, file=sys.__stderr__)
            return len(text)
        text = safe_str(data).rstrip("\n") if data and not self.closed else ""
        # What the logger itself prints would come back for ever.
        if not text or getattr(self._thread, "recurse_protection", False):
            return 0
        self._thread.recurse_protection = True
        try:
            self.logger.log(self.loglevel, text)
        finally:
            self._thread.recurse_protection = False
        return len(text)

    def writelines(self, sequence: Iterable[Any]) -> None:
        """Log each."""
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """Log no more."""
        self.closed = True

    def isatty(self) -> bool:
        """It is none."""
        return False


def _tell_real_stderr(record: logging.LogRecord) -> None:
    import traceback

    try:
        traceback.print_exc(None, sys.__stderr__)
    except OSError:  # a closed terminal; there is nobody left to tell
        pass


def get_multiprocessing_logger() -> logging.Logger:
    """Return the logger of billiard."""
    return util.get_logger()


def reset_multiprocessing_logger() -> None:
    """Let billiard make its logger anew."""
    util._logger = None


def current_process() -> Any:
    """Return this process as billiard sees it."""
    return process.current_process()


def current_process_index(base: int = 1) -> int | None:
    """Return the number of this process in its pool; None outside."""
    index = getattr(current_process(), "index", None)
    return None if index is None else index + base
