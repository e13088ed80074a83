"""Logging of workers and other programs: `app.log`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from logging.handlers import WatchedFileHandler
from typing import Any

from kombu.utils.encoding import set_default_encoding_file

from .. import signals
from .._state import get_current_task
from ..exceptions import CDeprecationWarning, CPendingDeprecationWarning
from ..local import class_property
from ..platforms import isatty
from ..utils.log import (
    ColorFormatter,
    LoggingProxy,
    get_logger,
    get_multiprocessing_logger,
    mlevel,
    reset_multiprocessing_logger,
)
from ..utils.nodenames import node_format
from ..utils.term import colored

__all__ = ["Logging", "TaskFormatter"]

MP_LOG = os.environ.get("MP_LOG", False)


class TaskFormatter(ColorFormatter):
    """Knows `task_id` and `task_name` of the run that logs; "???" outside.

    What a child process logs is written by its parent, and carries the run's facts.
    """

    def format(self, record: logging.LogRecord) -> str:
        task = get_current_task()
        if task and task.request:
            record.__dict__.update(task_id=task.request.id, task_name=task.name)
        else:
            facts = record.__dict__
            facts.setdefault("task_name", facts.get("task") or "???")
            facts["task_id"] = facts.get("task_id") or "???"
        return super().format(record)


class Logging:
    """Sets up loggers, once in a process.

    A receiver of `signals.setup_logging` does all by itself: then nothing is configured here.
    """

    _setup = False

    def __init__(self, app: Any) -> None:
        conf = app.conf
        self.app = app
        self.loglevel = mlevel(logging.WARN)
        self.format, self.datefmt = conf.worker_log_format, conf.worker_log_datefmt
        self.task_format = conf.worker_task_log_format
        self.task_datefmt = conf.worker_task_log_datefmt
        self.colorize = conf.worker_log_color

    def setup(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        redirect_stdouts: bool = False,
        redirect_level: Any = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> Any:
        """Do it as a worker does: loggers, then stdout and stderr; children read it in the
        environment. Return what receivers of `setup_logging` answered.
        """
        loglevel = mlevel(loglevel)
        handled = self.setup_logging_subsystem(
            loglevel, logfile, colorize=colorize, hostname=hostname
        )
        if not handled and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        os.environ["CELERY_LOG_LEVEL"] = str(loglevel or "")
        os.environ["CELERY_LOG_FILE"] = str(logfile or "")
        for category in (CDeprecationWarning, CPendingDeprecationWarning):
            warnings.filterwarnings("always", category=category)
        logging.captureWarnings(True)
        engine = logging.getLogger("fsdf.engine")  # tells where queues are; we say so as Celery
        if engine.level == logging.NOTSET and (loglevel or self.loglevel) > logging.DEBUG:
            engine.setLevel(logging.WARNING)
        return handled

    def redirect_stdouts(self, loglevel: Any = None, name: str = "celery.redirected") -> None:
        """Log what is printed."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel=loglevel)
        os.environ["CELERY_LOG_REDIRECT"] = "1"
        os.environ["CELERY_LOG_REDIRECT_LEVEL"] = str(loglevel or "")

    def setup_logging_subsystem(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Set up the root logger and `celery.task`; None if it has been done before.

        Raises: whatever a receiver of `setup_logging` raises: there are no logs to tell of it.
        """
        if self.already_setup:
            return None
        if logfile and hostname:
            logfile = node_format(logfile, hostname)
        Logging._setup = True
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.format
        colorize = self.supports_color(colorize, logfile)
        told = {"loglevel": loglevel, "logfile": logfile, "format": format, "colorize": colorize}
        reset_multiprocessing_logger()
        receivers = signals.setup_logging.send(sender=None, **told)
        for _, answer in receivers:
            if isinstance(answer, Exception):
                Logging._setup = False
                raise answer
        if not receivers:
            self._setup_root(told, self.datefmt if datefmt is None else datefmt, **kwargs)
            self.setup_task_loggers(loglevel, logfile, colorize=colorize)
        handlers = logging.getLogger().handlers
        if handlers and hasattr(handlers[0], "stream"):
            set_default_encoding_file(handlers[0].stream)
        # Billiard's children that are started anew log before they have read any settings.
        os.environ["_MP_FORK_LOGLEVEL_"] = str(loglevel)
        os.environ["_MP_FORK_LOGFILE_"] = logfile if isinstance(logfile, str) else ""
        os.environ["_MP_FORK_LOGFORMAT_"] = format or ""
        return receivers

    def _setup_root(self, told: dict[str, Any], datefmt: Any, **kwargs: Any) -> None:
        root = logging.getLogger()
        if self.app.conf.worker_hijack_root_logger:
            for logger in (root, *map(get_logger, ("celery", "celery.task", "celery.redirected"))):
                logger.handlers = []
        where = (told["logfile"], told["loglevel"], told["format"], told["colorize"])
        self._configure_logger(root, *where, datefmt=datefmt, **kwargs)
        logfile, level, *rest = where
        pool_level = level if MP_LOG else logging.ERROR
        self._configure_logger(
            get_multiprocessing_logger(), logfile, pool_level, *rest, datefmt=datefmt, **kwargs
        )
        signals.after_setup_logger.send(sender=None, logger=root, **told)

    def _configure_logger(
        self, logger: Any, logfile: Any, loglevel: Any, format: Any, colorize: Any, **kwargs: Any
    ) -> None:
        if logger is not None:
            self.setup_handlers(logger, logfile, format, colorize, **kwargs)
            if loglevel:
                logger.setLevel(loglevel)

    def setup_task_loggers(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        propagate: bool = False,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Set up `celery.task`, above the loggers of tasks; return it."""
        told = {
            "loglevel": mlevel(loglevel or self.loglevel),
            "logfile": logfile,
            "format": format or self.task_format,
            "colorize": self.supports_color(colorize, logfile),
        }
        logger = self.setup_handlers(
            get_logger("celery.task"),
            logfile,
            told["format"],
            told["colorize"],
            formatter=TaskFormatter,
            datefmt=self.task_datefmt if datefmt is None else datefmt,
            **kwargs,
        )
        logger.setLevel(told["loglevel"])
        logger.propagate = bool(propagate)
        signals.after_setup_task_logger.send(sender=None, logger=logger, **told)
        return logger

    def redirect_stdouts_to_logger(
        self, logger: Any, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Put a file in the place of stdout and stderr that logs; return it."""
        proxy: Any = LoggingProxy(logger, loglevel)
        if stdout:
            sys.stdout = proxy
        if stderr:
            sys.stderr = proxy
        return proxy

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> Any:
        """Tell if colours are wanted, and seen: by a person at a terminal."""
        colorize = self.colorize if colorize is None else colorize
        if self.app.IS_WINDOWS:
            return False
        if colorize or colorize is None:
            return logfile is None and isatty(sys.stderr)
        return colorize

    def colored(self, logfile: Any = None, enabled: bool | None = None) -> colored:
        """Return what colours texts."""
        return colored(enabled=self.supports_color(enabled, logfile))

    def setup_handlers(
        self,
        logger: Any,
        logfile: Any,
        format: Any,
        colorize: Any,
        formatter: Any = ColorFormatter,
        datefmt: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Give a logger that has no handler one: to a file, else to stderr."""
        if not self._is_configured(logger):
            handler = self._detect_handler(logfile)
            handler.setFormatter(formatter(format, datefmt=datefmt, use_color=colorize))
            logger.addHandler(handler)
        return logger

    def _detect_handler(self, logfile: Any = None) -> logging.Handler:
        logfile = sys.__stderr__ if logfile is None else logfile
        if hasattr(logfile, "write"):
            return logging.StreamHandler(logfile)
        return WatchedFileHandler(logfile, encoding="utf-8")

    def _has_handler(self, logger: Any) -> bool:
        return not all(isinstance(h, logging.NullHandler) for h in logger.handlers or ())

    def _is_configured(self, logger: Any) -> bool:
        # billiard's own handler is for those who have set up nothing.
        return self._has_handler(logger) and not getattr(logger, "_rudimentary_setup", False)

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:
        """Return a logger."""
        return get_logger(name)

    @class_property
    def already_setup(cls) -> bool:
        """Whether this process has been set up."""
        return cls._setup

    @already_setup.setter  # type: ignore[no-redef]
    def already_setup(cls, was_setup: bool) -> None:
        cls._setup = was_setup
