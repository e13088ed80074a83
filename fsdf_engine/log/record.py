"""What a log record tells beside its message, and how it is written: as text or as JSON."""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from ..core.context import current_job
from ..outcomes import text_of
from ..spelling import masked

__all__ = [
    "BESIDE", "FIELDS", "JsonFormatter", "RunContext", "TextFormatter", "clock", "dumped",
    "logger_of", "masked_text", "place_of", "run_of", "shortened", "shown", "trace_text",
]  # fmt: skip
BESIDE = "fsdf beside: "  # begins the name of a handler that is no reason not to use others
FIELDS = ("queue", "task", "task_id", "attempt")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_URL = re.compile(r"\S*://\S+")
_STANDARD = {*vars(logging.makeLogRecord({})), "asctime", "message", "place", "taskName", *FIELDS}


def logger_of(queue: str, prefix: str = "") -> logging.Logger:
    """Return the logger of a queue's consumer; one with a prefix is a child of "fsdf", too."""
    if not prefix:
        return logging.getLogger(f"fsdf.queue.{queue}")
    logger = logging.getLogger(f"{prefix}--Consumer--{queue}")
    logger.parent = logging.getLogger("fsdf")
    return logger


class RunContext(logging.Filter):
    """Gives every record `queue`, `task`, `task_id` and `attempt`: of the run that logs it.

    Outside of runs they are empty. Add it to a handler: a logger's own filters see only what is
    logged by that very logger.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attributes that the record has not; let it pass."""
        job = current_job.get(None)
        facts: tuple[Any, ...] = ("", "", "", "")
        if job is not None:
            facts = (job.plan.queue, job.plan.name or job.plan.queue, job.id, job.attempt)
        for name, value in zip(FIELDS, facts):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class TextFormatter(logging.Formatter):
    """One line a record: time, level, logger, process, message, the run, `path:line`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(process)d %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, without the traceback."""
        place = place_of(record)
        where = f" ({shown(place)})" if place and shown(place) not in record.message else ""
        return f"{super().formatMessage(record)}{run_of(record)}{where}"

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the traceback, without `print`: a program may have patched that."""
        return trace_text(ei)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line and the traceback, without the passwords of URLs."""
        return masked_text(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what was given as `extra` is part of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        when = datetime.fromtimestamp(record.created).astimezone()
        facts: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts |= {name: value for name in FIELDS if (value := getattr(record, name, "")) != ""}
        path, line = getattr(record, "place", None) or (record.pathname, record.lineno)
        facts |= {"file": path, "line": line, "process": record.process}
        facts["thread"] = record.threadName
        facts |= {name: v for name, v in vars(record).items() if name not in _STANDARD}
        if record.exc_info and not record.exc_text:
            record.exc_text = trace_text(record.exc_info)
        if record.exc_text:
            facts["exception"] = record.exc_text
        if record.stack_info:
            facts["stack"] = record.stack_info
        return dumped({k: masked_text(v) if type(v) is str else v for k, v in facts.items()})


def dumped(facts: dict[str, Any]) -> str:
    """Return JSON on one line, whatever the values are."""
    try:
        return orjson.dumps(facts, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a number too long, text that is no Unicode, something too deep
        return orjson.dumps({text_of(k): _plain(v) for k, v in facts.items()}).decode()


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, float):
        return value
    return value if type(value) is int and abs(value) < 1 << 53 else text_of(value)


def trace_text(info: Any) -> str:
    """Return the text of an `exc_info`."""
    return "".join(traceback.format_exception(*info)).rstrip("\n")


def place_of(record: logging.LogRecord) -> tuple[str, int] | None:
    """Return the line to look at: where the error came from, or where it was logged.

    None where that is in the engine itself.
    """
    if place := getattr(record, "place", None):
        return str(place[0]), int(place[1])
    if record.pathname.startswith(_PACKAGE):
        return None
    return record.pathname, record.lineno


def run_of(record: logging.LogRecord) -> str:
    """Return the run that a record was made in, where its message does not name it."""
    id = str(getattr(record, "task_id", ""))
    if not id or id in record.message:
        return ""
    named = [f"{name}={getattr(record, name, '')}" for name in FIELDS]
    return f" [{' '.join(named)}]"


def shown(place: tuple[str, int]) -> str:
    """Return `path:line`, which editors and terminals recognise."""
    return f"{shortened(place[0])}:{place[1]}"


def shortened(path: str) -> str:
    """Return a path as editors find it from the current folder; whole where it is elsewhere."""
    try:
        return _relative(path, os.getcwd())
    except (OSError, ValueError):  # no current folder, another drive
        return path


@lru_cache(1024)
def _relative(path: str, folder: str) -> str:
    inside = os.path.relpath(path, folder)
    return path if inside.startswith(os.pardir) else inside


def masked_text(text: str) -> str:
    """Replace the passwords of all URLs in a text."""
    return _URL.sub(lambda url: masked(url[0]), text) if "://" in text else text


def clock(record: logging.LogRecord) -> str:
    """Return the time of day of a record, with milliseconds."""
    whole = time.strftime("%H:%M:%S", time.localtime(record.created))
    return f"{whole}.{int(record.msecs):03d}"
