"""Log files that rotate, and that several processes may write at the same time."""

from __future__ import annotations

import logging
import os

from ..errors import ConfigurationError, MissingExtra

__all__ = ["rotating_file"]


def rotating_file(path: str, size: int, count: int) -> logging.Handler:
    """Return a handler that appends to `path`, and starts anew at `size` bytes keeping `count`.

    Raises:
        MissingExtra: the library that makes this safe is not installed.
        ConfigurationError: the file cannot be written.
    """
    try:
        from concurrent_log_handler import ConcurrentRotatingFileHandler
    except ImportError as error:
        raise MissingExtra(
            f'the log file {path} needs concurrent-log-handler: pip install "fsdf[logs]"'
        ) from error
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "a"):  # the handler opens it at the first record, and would fail silently
            pass
        return ConcurrentRotatingFileHandler(
            path, "a", maxBytes=size, backupCount=count, encoding="utf-8"
        )
    except OSError as error:
        raise ConfigurationError(
            f"the log file {path} cannot be written: {error}; give another LOG_FILE"
        ) from error
